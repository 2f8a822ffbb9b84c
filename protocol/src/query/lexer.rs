//! Cuts a query into words, quoted texts and signs.

use std::borrow::Cow;

use super::{Comparison, QueryError, value::ends_word};

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    /// Characters up to white space or a sign.
    Word(&'a str),
    /// A text in quotes, without them.
    Quoted(Cow<'a, str>),
    /// `<` `<=` `=` `==` `!=` `>=` `>`
    Sign(Comparison),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `[`
    ListOpen,
    /// `]`
    ListClose,
    /// `,`
    Comma,
}

/// A token and its column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned<'a> {
    pub token: Token<'a>,
    pub column: usize,
}

/// Cuts the whole text. Its length is bounded by the caller.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned<'_>>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
            column += 1;
            continue;
        }
        let (token, length) = match c {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '[' => (Token::ListOpen, 1),
            ']' => (Token::ListClose, 1),
            ',' => (Token::Comma, 1),
            '<' | '>' | '=' | '!' => sign(rest, column)?,
            '"' | '\'' => quoted(rest, c, column)?,
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || ends_word(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        tokens.push(Spanned { token, column });
        column += rest[..length].chars().count();
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn sign(rest: &str, column: usize) -> Result<(Token<'static>, usize), QueryError> {
    const SIGNS: [(&str, Comparison); 7] = [
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
    ];
    SIGNS
        .iter()
        .find(|(text, _)| rest.starts_with(text))
        .map(|(text, comparison)| (Token::Sign(*comparison), text.len()))
        .ok_or_else(|| QueryError::Unexpected {
            column,
            expected: "`!=` (or the word `not`)",
            found: "a lone `!`".to_owned(),
        })
}

/// Reads a text in quotes of the kind `quote`; a backslash takes the next character as it is.
fn quoted(rest: &str, quote: char, column: usize) -> Result<(Token<'_>, usize), QueryError> {
    let body = &rest[1..];
    let mut escaped = false;
    let mut escapes = false;
    for (at, c) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
            escapes = true;
        } else if c == quote {
            let inner = &body[..at];
            let text = if escapes { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) };
            return Ok((Token::Quoted(text), at + 2));
        }
    }
    Err(QueryError::OpenQuote { column })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}
