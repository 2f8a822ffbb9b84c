//! Values of the search language, and how they are read and written.

use std::fmt;

use super::field::Kind;

/// A version of up to three numbers, compared number by number: `535.104.05` is above `535.86`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version([u32; 3]);

/// Each number of a version is below this, so that three of them fit a 64-bit float's integers.
const VERSION_PART: u32 = 1 << 17;

impl Version {
    /// Reads one; none unless it is one to three numbers below 131,072 with dots between.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 3];
        for (count, part) in text.split('.').enumerate() {
            let slot = parts.get_mut(count)?;
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *slot = part.parse().ok().filter(|n| *n < VERSION_PART)?;
        }
        Some(Self(parts))
    }

    /// A number that orders as the version does, exactly.
    #[must_use]
    pub fn order(self) -> f64 {
        let [major, minor, patch] = self.0.map(f64::from);
        let base = f64::from(VERSION_PART);
        (major * base + minor) * base + patch
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A value that a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A finite number, in the field's unit.
    Number(f64),
    /// A version.
    Version(Version),
    /// True or false.
    Bool(bool),
    /// A text or an id.
    Text(String),
}

impl Value {
    /// Reads a value of the given kind; none if the text is not one. `bare` texts have `_` for a space.
    pub(super) fn read(kind: Kind, text: &str, bare: bool) -> Option<Self> {
        match kind {
            Kind::Number => number(text).map(Self::Number),
            Kind::Version => Version::parse(text).map(Self::Version),
            Kind::Bool => truth(text).map(Self::Bool),
            Kind::Id if text.is_empty() => None,
            Kind::Id => Some(Self::Text(text.to_owned())),
            Kind::Text if bare => Some(Self::Text(text.replace('_', " "))),
            Kind::Text => Some(Self::Text(text.to_owned())),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let text = text.strip_prefix('$').unwrap_or(text);
    // Keeps out `inf`, `nan` and `infinity`, which the standard library reads.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    // Adding zero makes −0 into 0, which are the same to every comparison but not in print.
    numeric.then(|| text.parse::<f64>().ok())?.filter(|x| x.is_finite()).map(|x| x + 0.0)
}

fn truth(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
    if is(&["true", "yes", "1"]) {
        return Some(true);
    }
    is(&["false", "no", "0"]).then_some(false)
}

/// Words that lift a default filter instead of being a value.
pub(super) fn is_any(text: &str) -> bool {
    text.eq_ignore_ascii_case("any") || text == "?" || text == "*"
}

/// Characters that end a bare word, white space apart.
pub(super) fn ends_word(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | ',' | '<' | '>' | '=' | '!' | '"' | '\'')
}

impl fmt::Display for Value {
    /// As the parser reads it back: bare where it can be, in double quotes where it must.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Version(v) => v.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Text(text) => {
                let plain = !text.is_empty()
                    && !is_any(text)
                    && text.chars().all(|c| c == ' ' || !(c == '_' || c.is_whitespace() || ends_word(c)));
                if plain {
                    return f.write_str(&text.replace(' ', "_"));
                }
                f.write_str("\"")?;
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        f.write_str("\\")?;
                    }
                    write!(f, "{c}")?;
                }
                f.write_str("\"")
            }
        }
    }
}
