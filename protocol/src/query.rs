//! The search language: what a renter asks of the market, as text and as a tree.
//!
//! The grammar is the one Vast.ai's users know (`gpu_name=RTX_4090 num_gpus>=2 dph<0.8 geolocation in [DE,FR]`), with `or`,
//! `not` and parentheses added:
//!
//! ```text
//! query      = [ either ]
//! either     = all { "or" all }
//! all        = one { [ "and" ] one }
//! one        = "not" one | "(" either ")" | condition
//! condition  = field op value | field ("in" | "notin") "[" value { "," value } "]" | field [ "=" ] "any"
//! op         = "<" "<=" "=" "==" "!=" ">=" ">", or in words: lt lte eq neq gte gt
//! ```
//!
//! In a bare word `_` stands for a space. `any` (also `?` and `*`) is true of everything and lifts the default filter on its
//! field. A field that an offer says nothing about meets no condition, not even `!=`.
//!
//! Owns the text, the tree, and the table of [`fields`]; what the fields are worth for an ask is
//! [`crate::machine::search`]'s.

mod error;
mod field;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

pub use error::QueryError;
pub use field::{Field, FieldInfo, Kind, fields};
pub use value::{Value, Version};

/// Bytes of a query.
pub const QUERY_BYTES: usize = 64 * 1024;
/// Conditions in a query: more than anybody writes, few enough for one pass over the market each.
pub const QUERY_CONDITIONS: usize = 256;
/// Values in all lists of a query together.
pub const QUERY_VALUES: usize = 4096;
/// Parentheses and `not`s inside one another, so that no text exhausts the stack.
pub const QUERY_DEPTH: usize = 32;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

impl Comparison {
    /// How it is written.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
        }
    }

    /// Whether it holds between two numbers, neither of which is absent.
    #[must_use]
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::GreaterOrEqual => left >= right,
            Self::Greater => left > right,
        }
    }

    /// Whether it asks for an order, which texts and truth values have not.
    #[must_use]
    pub const fn orders(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// What is asked of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Nothing: lifts the default filter on the field.
    Any,
    /// A comparison with one value.
    Compare(Comparison, Value),
    /// To be one of these.
    In(Vec<Value>),
    /// To be none of these.
    NotIn(Vec<Value>),
}

/// One field and what is asked of it. The values are of the field's [`Kind`].
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Which field.
    pub field: Field,
    /// What of it.
    pub test: Test,
}

/// A tree of conditions.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of these hold; with nothing in it, always true.
    All(Vec<Expr>),
    /// At least one of these holds.
    Either(Vec<Expr>),
    /// This does not hold.
    Not(Box<Expr>),
    /// One condition.
    Is(Condition),
}

impl Expr {
    /// Calls `visit` with every condition in the tree, in the order written.
    pub fn conditions<'a>(&'a self, visit: &mut dyn FnMut(&'a Condition)) {
        match self {
            Self::All(parts) | Self::Either(parts) => {
                for part in parts {
                    part.conditions(visit);
                }
            }
            Self::Not(inner) => inner.conditions(visit),
            Self::Is(condition) => visit(condition),
        }
    }
}

/// A parsed query. Made only by [`Query::parse`], so its size and depth are bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    root: Expr,
}

impl Default for Query {
    /// The query that everything matches.
    fn default() -> Self {
        Self { root: Expr::All(Vec::new()) }
    }
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// Says what is wrong, in which column, and what was expected there; see [`QueryError`].
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parser::parse(text).map(|root| Self { root })
    }

    /// The whole tree.
    #[must_use]
    pub const fn root(&self) -> &Expr {
        &self.root
    }

    /// The parts all of which must hold, in the order written.
    #[must_use]
    pub fn conjuncts(&self) -> &[Expr] {
        match &self.root {
            Expr::All(parts) => parts,
            Expr::Either(_) | Expr::Not(_) | Expr::Is(_) => std::slice::from_ref(&self.root),
        }
    }

    /// Whether the query says anything of `field`, so that no default filter on it applies.
    #[must_use]
    pub fn mentions(&self, field: Field) -> bool {
        let mut found = false;
        self.root.conditions(&mut |condition| found |= condition.field == field);
        found
    }
}

impl std::str::FromStr for Query {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

fn join(f: &mut fmt::Formatter<'_>, parts: &[Expr], between: &str) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        // `or` binds weakest, so only it needs parentheses inside another.
        match part {
            Expr::Either(_) => write!(f, "({part})")?,
            Expr::All(_) | Expr::Not(_) | Expr::Is(_) => write!(f, "{part}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Expr {
    /// As [`Query::parse`] reads it back to the same tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => join(f, parts, " "),
            Self::Either(parts) => join(f, parts, " or "),
            Self::Not(inner) => match &**inner {
                Self::All(_) | Self::Either(_) => write!(f, "not ({inner})"),
                Self::Not(_) | Self::Is(_) => write!(f, "not {inner}"),
            },
            Self::Is(condition) => condition.fmt(f),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, values: &[Value]) -> fmt::Result {
    f.write_str("[")?;
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        write!(f, "{value}")?;
    }
    f.write_str("]")
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.field.name();
        match &self.test {
            Test::Any => write!(f, "{name}=any"),
            Test::Compare(comparison, value) => write!(f, "{name}{}{value}", comparison.symbol()),
            Test::In(values) => {
                write!(f, "{name} in ")?;
                list(f, values)
            }
            Test::NotIn(values) => {
                write!(f, "{name} notin ")?;
                list(f, values)
            }
        }
    }
}
