//! Just enough of SQL's lexis to see what kind of statement a schema's text is, and where the
//! parts of one begin (<https://sqlite.org/lang.html>). Pure.

/// A token and where it is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its text, quotes included.
    pub text: &'a str,
    /// Offset of its first byte.
    pub start: usize,
}

impl Token<'_> {
    /// Whether it is this keyword, which a quoted name never is.
    pub fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }

    /// Offset of the byte after it.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// The tokens of `sql`: words, quoted names and strings, single other characters. Whitespace and
/// comments are skipped. An unclosed quote or comment reaches to the end.
pub fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> + Clone {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = sql.get(at..)?;
            let blank = rest.len() - rest.trim_start().len();
            let comment = if let Some(line) = rest.strip_prefix("--") {
                line.find('\n').map_or(rest.len(), |end| end + 3)
            } else if let Some(block) = rest.strip_prefix("/*") {
                block.find("*/").map_or(rest.len(), |end| end + 4)
            } else {
                0
            };
            match blank + comment {
                0 => break,
                // A comment may follow the whitespace.
                _ if blank > 0 => at += blank,
                skipped => at += skipped,
            }
        }
        let rest = sql.get(at..)?;
        let first = rest.chars().next()?;
        let length = match first {
            '"' | '\'' | '`' => quoted_length(rest, first),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if is_word(first) => rest.find(|it| !is_word(it)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let token = Token { text: rest.get(..length)?, start: at };
        at += length;
        Some(token)
    })
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

/// The length up to and including the closing quote. A doubled quote is an escaped quote.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|&(_, next)| next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// Renames column `from` of a CREATE TABLE statement to `to`, wherever the statement names it.
pub fn with_another_name(statement: &str, from: &str, to: &str) -> String {
    let mut renamed = String::new();
    let mut copied = 0;
    // CREATE, TABLE and the table's name come first.
    for token in tokens(statement).skip(3) {
        if unquoted(token.text).eq_ignore_ascii_case(from) {
            renamed += statement.get(copied..token.start).unwrap_or_default();
            renamed += to;
            copied = token.end();
        }
    }
    renamed + statement.get(copied..).unwrap_or_default()
}

/// A name without its quotes.
pub fn unquoted(text: &str) -> &str {
    [('"', '"'), ('\'', '\''), ('`', '`'), ('[', ']')]
        .into_iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close))
        .unwrap_or(text)
}

/// What a statement of a schema makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// A table whose columns are given, not selected.
    Table,
    /// A virtual table.
    VirtualTable,
    /// An index.
    Index,
    /// A UNIQUE index.
    UniqueIndex,
    /// A view.
    View,
    /// A trigger.
    Trigger,
}

/// What `sql` makes, if it is a statement that a schema can have.
pub fn makes(sql: &str) -> Option<Makes> {
    let mut tokens = tokens(sql);
    if !tokens.next()?.is("CREATE") {
        return None;
    }
    let kind = tokens.next()?;
    let mut next_is = |keyword: &str| tokens.next().is_some_and(|token| token.is(keyword));
    if kind.is("TABLE") {
        // The name, then the columns: CREATE TABLE … AS SELECT is never stored.
        tokens.next()?;
        (tokens.next()?.text == "(").then_some(Makes::Table)
    } else if kind.is("VIRTUAL") {
        next_is("TABLE").then_some(Makes::VirtualTable)
    } else if kind.is("UNIQUE") {
        next_is("INDEX").then_some(Makes::UniqueIndex)
    } else if kind.is("INDEX") {
        Some(Makes::Index)
    } else if kind.is("VIEW") {
        Some(Makes::View)
    } else if kind.is("TRIGGER") {
        Some(Makes::Trigger)
    } else {
        None
    }
}

/// The name of what a statement makes, and where in the text it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset of the byte after it.
    pub end: usize,
    text: String,
}

impl Name {
    /// The name without its quotes, and with doubled quotes inside it unescaped.
    pub fn unquoted(&self) -> String {
        let inner = unquoted(&self.text);
        match self.text.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) if inner.len() < self.text.len() => {
                inner.replace(&format!("{quote}{quote}"), &quote.to_string())
            }
            _ => inner.to_owned(),
        }
    }
}

/// The name of what `sql` makes, if it is a statement that a schema can have.
pub fn name_made(sql: &str) -> Option<Name> {
    makes(sql)?;
    let mut tokens = tokens(sql)
        .skip(1)
        .skip_while(|token| ["UNIQUE", "VIRTUAL"].into_iter().any(|before| token.is(before)));
    tokens.next()?;
    let token = tokens.next()?;
    Some(Name { start: token.start, end: token.end(), text: token.text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_and_comments_are_no_tokens_and_quotes_belong_to_theirs() {
        let texts = |sql| tokens(sql).map(|token| token.text).collect::<Vec<_>>();
        assert_eq!(
            texts("a/* ) */ -- x\n\"b \"\"c\"'d''e'[f g]`h`(1.5,é)"),
            ["a", "\"b \"\"c\"", "'d''e'", "[f g]", "`h`", "(", "1", ".", "5", ",", "é", ")"]
        );
        for unclosed in ["'a", "\"a\"\"", "[a", "`"] {
            assert_eq!(texts(unclosed), [unclosed]);
        }
        for nothing in ["", "  ", "-- a", "/* a", "/**/"] {
            assert_eq!(texts(nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn a_statement_is_what_it_makes() {
        for (sql, what) in [
            ("CREATE TABLE t(a)", Some(Makes::Table)),
            ("create /* */ table \"t (\" (a)", Some(Makes::Table)),
            ("CREATE TABLE t AS SELECT 1", None),
            ("CREATE TEMP TABLE t(a)", None),
            ("CREATE VIRTUAL TABLE t USING fts5(a)", Some(Makes::VirtualTable)),
            ("CREATE UNIQUE INDEX i ON t(a)", Some(Makes::UniqueIndex)),
            ("CREATE INDEX i ON t(a)", Some(Makes::Index)),
            ("CREATE VIEW v AS SELECT 1", Some(Makes::View)),
            ("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END", Some(Makes::Trigger)),
            ("DROP TABLE t", None),
            ("CREATE", None),
            ("", None),
        ] {
            assert_eq!(makes(sql), what, "{sql}");
        }
    }

    #[test]
    fn a_statement_names_what_it_makes() {
        for (sql, name) in [
            ("CREATE TABLE t(a)", Some("t")),
            ("CREATE TABLE \"a \"\"b\"(a)", Some("a \"b")),
            ("CREATE TABLE 'mail_content'(a)", Some("mail_content")),
            ("CREATE VIRTUAL TABLE [v w] USING fts5(a)", Some("v w")),
            ("CREATE UNIQUE INDEX i ON t(a)", Some("i")),
            ("CREATE VIEW v AS SELECT 1", Some("v")),
            ("CREATE TABLE", None),
            ("SELECT 1", None),
        ] {
            assert_eq!(name_made(sql).map(|name| name.unquoted()).as_deref(), name, "{sql}");
        }
    }

    #[test]
    fn a_column_is_renamed_wherever_it_is_named() {
        assert_eq!(
            with_another_name("CREATE TABLE oid(oid, [OID] AS (\"oid\" + oids), 'x')", "oid", "n"),
            "CREATE TABLE oid(n, n AS (n + oids), 'x')"
        );
    }
}
