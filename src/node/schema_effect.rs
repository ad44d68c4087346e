//! Which statements leave every prepared statement of their connection valid.

use super::environment::flag;

/// First keywords of statements that change neither the schema nor a setting which the meaning
/// of other statements depends on. `ROLLBACK` is missing because it can undo a schema change,
/// `EXPLAIN` because some `PRAGMA`s act while they are parsed.
const NEUTRAL: [&[u8]; 12] = [
    b"SELECT",
    b"INSERT",
    b"UPDATE",
    b"DELETE",
    b"REPLACE",
    b"WITH",
    b"VALUES",
    b"BEGIN",
    b"COMMIT",
    b"END",
    b"SAVEPOINT",
    b"RELEASE",
];

/// First keywords of statements that change rows, if they change anything.
const OF_ROWS: [&[u8]; 5] = [b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"WITH"];

/// Whether the first statement of `sql` changes nothing but rows: outside of a transaction it
/// commits before it ends.
pub fn is_of_rows(sql: &[u8]) -> bool {
    starts_with_one_of(&OF_ROWS, sql)
}

/// Whether the first statement of `sql` is one after which statements prepared earlier mean what
/// they meant. Says no when in doubt.
pub fn is_neutral(sql: &[u8]) -> bool {
    starts_with_one_of(&NEUTRAL, sql)
}

fn starts_with_one_of(keywords: &[&[u8]], sql: &[u8]) -> bool {
    let sql = skip_space(sql);
    let length = sql.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    sql.get(..length)
        .is_some_and(|word| keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)))
}

/// [`flag::SETTING`] if the first statement of `sql` is a PRAGMA, or explains one: some act while
/// they are parsed.
pub fn setting_flag(sql: &[u8]) -> i32 {
    let sql = skip_space(sql);
    let is =
        |word: &[u8]| sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if is(b"PRAGMA") || is(b"EXPLAIN") { flag::SETTING } else { 0 }
}

/// `sql` without the white space, comments and empty statements in front.
pub fn skip_space(mut sql: &[u8]) -> &[u8] {
    loop {
        sql = match sql {
            [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b';', rest @ ..] => rest,
            [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => after(rest, b"\n"),
            [b'/', b'*', rest @ ..] => after(rest, b"*/"),
            _ => return sql,
        };
    }
}

fn after<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    text.windows(end.len())
        .position(|window| window == end)
        .and_then(|at| text.get(at + end.len()..))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_on_rows_and_transactions_are_neutral() {
        for sql in [
            "select 1",
            "  \n-- a comment\n/* another; */ ;INSERT INTO t VALUES (1)",
            "With x as (select 1) select * from x",
            "\u{feff}begin immediate",
            "release a",
            "(select 1)",
        ] {
            assert_eq!(is_neutral(sql.as_bytes()), !sql.starts_with('('), "{sql}");
        }
    }

    #[test]
    fn schema_settings_and_rollback_are_not() {
        for sql in [
            "",
            "-- select",
            "/* select",
            "create table t (a)",
            "pragma foreign_keys = on",
            "rollback to a",
            "explain pragma foreign_keys = on",
            "selects",
            "attach 'a' as b",
        ] {
            assert!(!is_neutral(sql.as_bytes()), "{sql}");
        }
    }
}
