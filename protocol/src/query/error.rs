//! What can be wrong with a query, as sentences for the person who typed it.

use super::{QUERY_BYTES, QUERY_CONDITIONS, QUERY_DEPTH, QUERY_VALUES, field::FieldInfo};

/// Why a text is not a query. Columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Over [`QUERY_BYTES`].
    #[error("the query is {0} bytes long: at most {QUERY_BYTES} are allowed")]
    TooLong(usize),
    /// Over [`QUERY_CONDITIONS`].
    #[error(
        "the query has more than {QUERY_CONDITIONS} conditions (column {column}): join those on one field with `in [...]`"
    )]
    TooManyConditions {
        /// Where the first condition too many begins.
        column: usize,
    },
    /// Over [`QUERY_VALUES`].
    #[error("the query's lists have more than {QUERY_VALUES} values (column {column})")]
    TooManyValues {
        /// Where the first value too many begins.
        column: usize,
    },
    /// Over [`QUERY_DEPTH`].
    #[error("parentheses and `not` are nested over {QUERY_DEPTH} deep at column {column}: write the query flatter")]
    TooDeep {
        /// Where the first level too many begins.
        column: usize,
    },
    /// No such field.
    #[error("column {column}: there is no field `{name}`{}", suggestion(*.nearest))]
    UnknownField {
        /// Where it stands.
        column: usize,
        /// What was written, cut to 40 characters.
        name: String,
        /// The field that was probably meant.
        nearest: Option<&'static FieldInfo>,
    },
    /// A value that the field can't have.
    #[error("column {column}: `{}` takes {}, not `{found}`", .field.name, .field.expects())]
    WrongType {
        /// Where the value stands.
        column: usize,
        /// The field.
        field: &'static FieldInfo,
        /// What was written, cut to 40 characters.
        found: String,
    },
    /// An order asked of something that has none.
    #[error("column {column}: `{}` is {}, which has no order: `{operator}` does not apply, use = != in notin", .field.name, .field.expects())]
    NotOrdered {
        /// Where the operator stands.
        column: usize,
        /// The field.
        field: &'static FieldInfo,
        /// The operator.
        operator: &'static str,
    },
    /// A quote that is never closed.
    #[error("column {column}: this quote is never closed")]
    OpenQuote {
        /// Where it opens.
        column: usize,
    },
    /// Something else than the grammar has there.
    #[error("column {column}: expected {expected}, found {found}")]
    Unexpected {
        /// Where.
        column: usize,
        /// What may stand there.
        expected: &'static str,
        /// What stands there, cut to 40 characters.
        found: String,
    },
}

fn suggestion(nearest: Option<&'static FieldInfo>) -> String {
    nearest.map_or_else(String::new, |info| format!(": did you mean `{}` ({})?", info.name, info.expects()))
}
