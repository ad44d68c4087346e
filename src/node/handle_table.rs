//! Values under numbers that are never mistaken for one another.
//!
//! A number is an index and the generation of its slot, so that the number of a value that was
//! removed does not lead to the one that took its place (until a slot was reused 4,096 times).

const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// Up to 2^20 values, each under a number.
#[derive(Debug)]
pub struct HandleTable<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for HandleTable<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> HandleTable<T> {
    /// Stores `value`; `None` if 2^20 values are stored already.
    pub fn insert(&mut self, value: T) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok()?;
                if index > INDEX_MASK {
                    return None;
                }
                self.slots.push(Slot { generation: 0, value: None });
                index
            }
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.value = Some(value);
        Some(index | slot.generation << INDEX_BITS)
    }

    /// The value under `number`.
    pub fn get(&self, number: u32) -> Option<&T> {
        let slot = self.slots.get((number & INDEX_MASK) as usize)?;
        if slot.generation == number >> INDEX_BITS { slot.value.as_ref() } else { None }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut((number & INDEX_MASK) as usize)?;
        if slot.generation == number >> INDEX_BITS { slot.value.as_mut() } else { None }
    }

    /// Takes the value under `number` out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let index = number & INDEX_MASK;
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != number >> INDEX_BITS {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & (u32::MAX >> INDEX_BITS);
        self.free.push(index);
        Some(value)
    }

    /// The numbers of the values that `wanted` picks.
    pub fn numbers(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (index, slot) in (0..).zip(&self.slots) {
            if slot.value.as_ref().is_some_and(&mut wanted) {
                numbers.push(index | slot.generation << INDEX_BITS);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_values_number_does_not_lead_to_its_successor() {
        let mut slab = HandleTable::default();
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.numbers(|_| true), [second]);
    }

    #[test]
    fn a_number_nobody_was_given_leads_nowhere() {
        let slab = HandleTable::<()>::default();
        assert_eq!(slab.get(u32::MAX), None);
    }
}
