//! Longest increasing subsequence. Values outside it count as damaged.

/// For each value, whether it is in the longest increasing subsequence (one of the longest).
pub(super) fn longest(values: &[i64]) -> Vec<bool> {
    // Patience sorting: the best last value of each length, and the predecessor of each value.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    for (place, value) in values.iter().enumerate() {
        let length = ends.partition_point(|&end| values.get(end).is_some_and(|end| end < value));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = place,
            None => ends.push(place),
        }
    }
    let mut kept = vec![false; values.len()];
    let mut next = ends.last().copied();
    while let Some(place) = next {
        if let Some(kept) = kept.get_mut(place) {
            *kept = true;
        }
        next = before.get(place).copied().flatten();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::longest;

    #[test]
    fn a_value_out_of_order_is_left_out() {
        for (values, kept) in [
            (&[1, 2, 3][..], &[true, true, true][..]),
            (&[1, 900, 3, 4], &[true, false, true, true]),
            (&[10, 2, 30, 40], &[false, true, true, true]),
            (&[5, 5], &[true, false]),
            (&[], &[]),
        ] {
            let count = kept.iter().filter(|it| **it).count();
            assert_eq!(longest(values).iter().filter(|it| **it).count(), count, "{values:?}");
        }
        assert_eq!(longest(&[1, 900, 3, 4]), [true, false, true, true]);
    }
}
