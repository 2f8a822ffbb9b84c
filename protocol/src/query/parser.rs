//! Builds the tree of a query from its tokens.

use super::{
    Comparison, Condition, Expr, Field, QUERY_BYTES, QUERY_CONDITIONS, QUERY_DEPTH, QUERY_VALUES, QueryError, Test,
    Value,
    lexer::{self, Spanned, Token},
    value::is_any,
};

/// Reads a whole query.
pub(super) fn parse(text: &str) -> Result<Expr, QueryError> {
    if text.len() > QUERY_BYTES {
        return Err(QueryError::TooLong(text.len()));
    }
    let tokens = lexer::tokens(text)?;
    let mut parser = Parser { tokens: &tokens, end: text.chars().count() + 1, depth: 0, conditions: 0, values: 0 };
    if tokens.is_empty() {
        return Ok(Expr::All(Vec::new()));
    }
    let root = parser.either()?;
    match parser.tokens.first() {
        None => Ok(root),
        Some(_) => Err(parser.unexpected("a condition or the end of the query")),
    }
}

/// What a field is asked, before its value is known.
enum Operator {
    Compare(Comparison),
    In,
    NotIn,
}

struct Parser<'t> {
    tokens: &'t [Spanned<'t>],
    /// The column after the last character.
    end: usize,
    depth: usize,
    conditions: usize,
    values: usize,
}

/// One part stands for itself; parts that are themselves of the same sort are taken in.
fn combine(mut parts: Vec<Expr>, wrap: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            wrap(parts)
        }
    }
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Token<'t>> {
        self.tokens.first().map(|t| &t.token)
    }

    fn column(&self) -> usize {
        self.tokens.first().map_or(self.end, |t| t.column)
    }

    fn advance(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word))
    }

    /// Steps over `word` if it is here.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn unexpected(&self, expected: &'static str) -> QueryError {
        let found = match self.peek() {
            None => "the end of the query".to_owned(),
            Some(Token::Word(word)) => format!("`{}`", cut(word)),
            Some(Token::Quoted(text)) => format!("\"{}\"", cut(text)),
            Some(Token::Sign(comparison)) => format!("`{}`", comparison.symbol()),
            Some(Token::Open) => "`(`".to_owned(),
            Some(Token::Close) => "`)`".to_owned(),
            Some(Token::ListOpen) => "`[`".to_owned(),
            Some(Token::ListClose) => "`]`".to_owned(),
            Some(Token::Comma) => "`,`".to_owned(),
        };
        QueryError::Unexpected { column: self.column(), expected, found }
    }

    fn either(&mut self) -> Result<Expr, QueryError> {
        let mut parts = Vec::new();
        loop {
            match self.all()? {
                Expr::Either(inner) => parts.extend(inner),
                other @ (Expr::All(_) | Expr::Not(_) | Expr::Is(_)) => parts.push(other),
            }
            if !self.take_word("or") {
                return Ok(combine(parts, Expr::Either));
            }
        }
    }

    fn all(&mut self) -> Result<Expr, QueryError> {
        let mut parts = Vec::new();
        loop {
            match self.one()? {
                Expr::All(inner) => parts.extend(inner),
                other @ (Expr::Either(_) | Expr::Not(_) | Expr::Is(_)) => parts.push(other),
            }
            if self.take_word("and") {
                continue;
            }
            if matches!(self.peek(), None | Some(Token::Close)) || self.at_word("or") {
                return Ok(combine(parts, Expr::All));
            }
        }
    }

    fn deeper(&mut self) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH {
            return Err(QueryError::TooDeep { column: self.column() });
        }
        self.advance();
        Ok(())
    }

    fn one(&mut self) -> Result<Expr, QueryError> {
        if self.at_word("not") {
            self.deeper()?;
            let inner = self.one()?;
            self.depth -= 1;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.peek() == Some(&Token::Open) {
            self.deeper()?;
            let inner = self.either()?;
            if self.peek() != Some(&Token::Close) {
                return Err(self.unexpected("`)` or another condition"));
            }
            self.advance();
            self.depth -= 1;
            return Ok(inner);
        }
        self.condition().map(Expr::Is)
    }

    fn condition(&mut self) -> Result<Condition, QueryError> {
        self.conditions += 1;
        if self.conditions > QUERY_CONDITIONS {
            return Err(QueryError::TooManyConditions { column: self.column() });
        }
        let field = self.field()?;
        if matches!(self.peek(), Some(Token::Word(word)) if is_any(word)) {
            self.advance();
            return Ok(Condition { field, test: Test::Any });
        }
        let test = match self.operator(field)? {
            Operator::Compare(comparison) => self.compared(field, comparison)?,
            Operator::In => Test::In(self.list(field)?),
            Operator::NotIn => Test::NotIn(self.list(field)?),
        };
        Ok(Condition { field, test })
    }

    fn field(&mut self) -> Result<Field, QueryError> {
        let Some(Token::Word(name)) = self.peek() else {
            return Err(self.unexpected("a field such as `gpu_name`"));
        };
        let field = Field::by_name(name).ok_or_else(|| QueryError::UnknownField {
            column: self.column(),
            name: cut(name),
            nearest: Field::nearest(name).map(Field::info),
        })?;
        self.advance();
        Ok(field)
    }

    fn operator(&mut self, field: Field) -> Result<Operator, QueryError> {
        const EXPECTED: &str = "one of < <= = != >= > in notin";
        let column = self.column();
        let compare = match self.peek() {
            Some(Token::Sign(comparison)) => {
                self.advance();
                *comparison
            }
            Some(Token::Word(word)) => {
                let negated = word.eq_ignore_ascii_case("not");
                if negated {
                    self.advance();
                }
                let Some(Token::Word(word)) = self.peek() else {
                    return Err(self.unexpected("`in` after `not`"));
                };
                let word = word.to_ascii_lowercase();
                let operator = match (word.as_str(), negated) {
                    ("in", false) => return self.taken(Operator::In),
                    ("in", true) | ("notin" | "nin", false) => return self.taken(Operator::NotIn),
                    ("eq", false) => Comparison::Equal,
                    ("eq", true) | ("neq" | "noteq", false) => Comparison::NotEqual,
                    ("lt", false) => Comparison::Less,
                    ("lte", false) => Comparison::LessOrEqual,
                    ("gt", false) => Comparison::Greater,
                    ("gte", false) => Comparison::GreaterOrEqual,
                    _ => return Err(self.unexpected(EXPECTED)),
                };
                self.advance();
                operator
            }
            Some(Token::Quoted(_) | Token::Open | Token::Close | Token::ListOpen | Token::ListClose | Token::Comma)
            | None => return Err(self.unexpected(EXPECTED)),
        };
        if compare.orders() && !field.info().kind.is_ordered() {
            return Err(QueryError::NotOrdered { column, field: field.info(), operator: compare.symbol() });
        }
        Ok(Operator::Compare(compare))
    }

    fn taken(&mut self, operator: Operator) -> Result<Operator, QueryError> {
        self.advance();
        Ok(operator)
    }

    fn compared(&mut self, field: Field, comparison: Comparison) -> Result<Test, QueryError> {
        if let Some(Token::Word(word)) = self.peek()
            && is_any(word)
            && comparison == Comparison::Equal
        {
            self.advance();
            return Ok(Test::Any);
        }
        if self.peek() == Some(&Token::ListOpen) {
            return Err(self.unexpected("one value (a list goes with `in` or `notin`)"));
        }
        self.value(field).map(|value| Test::Compare(comparison, value))
    }

    fn value(&mut self, field: Field) -> Result<Value, QueryError> {
        let column = self.column();
        let (text, bare) = match self.peek() {
            Some(Token::Word(word)) => (*word, true),
            Some(Token::Quoted(text)) => (text.as_ref(), false),
            Some(Token::Sign(_) | Token::Open | Token::Close | Token::ListOpen | Token::ListClose | Token::Comma)
            | None => return Err(self.unexpected("a value")),
        };
        self.advance();
        read(field, text, bare, column)
    }

    fn list(&mut self, field: Field) -> Result<Vec<Value>, QueryError> {
        if self.peek() != Some(&Token::ListOpen) {
            return self.value(field).map(|value| vec![value]);
        }
        self.advance();
        let mut values = Vec::new();
        loop {
            self.values += 1;
            if self.values > QUERY_VALUES {
                return Err(QueryError::TooManyValues { column: self.column() });
            }
            values.push(self.item(field)?);
            match self.peek() {
                Some(Token::Comma) => self.advance(),
                Some(Token::ListClose) => {
                    self.advance();
                    return Ok(values);
                }
                Some(
                    Token::Word(_) | Token::Quoted(_) | Token::Sign(_) | Token::Open | Token::Close | Token::ListOpen,
                )
                | None => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    /// One item of a list: a value, or words up to the comma, as in `[RTX 4090, RTX 3090]`.
    fn item(&mut self, field: Field) -> Result<Value, QueryError> {
        let column = self.column();
        let Some(Token::Word(first)) = self.peek() else {
            return self.value(field);
        };
        self.advance();
        let mut text = (*first).to_owned();
        while let Some(Token::Word(word)) = self.peek() {
            text.push(' ');
            text.push_str(word);
            self.advance();
        }
        read(field, &text, true, column)
    }
}

fn read(field: Field, text: &str, bare: bool, column: usize) -> Result<Value, QueryError> {
    Value::read(field.info().kind, text, bare).ok_or_else(|| QueryError::WrongType {
        column,
        field: field.info(),
        found: cut(text),
    })
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
