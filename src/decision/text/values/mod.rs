//! The typed values in a text: what it is about to the letter.
//!
//! Values do not overlap; of two that begin at one place the more specific kind wins. Each has a canonical form, so that
//! `1,000` is `1000` and `March 12, 2024` is `2024-03-12`. Every reader looks ahead a bounded number of bytes or
//! consumes what it read, so the scan is linear in the text.

mod date;
mod decimal;
mod id;
mod name;
mod number;
mod quoted;
mod web;

use crate::decision::text::language::Language;
use crate::decision::text::lexicon::{Lexicon, Unit};
use crate::decision::text::token::Token;

/// What sort of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Number,
    Percent,
    Money,
    /// A number with a unit of measure.
    Quantity,
    Date,
    Time,
    Id,
    Email,
    Url,
    Path,
    Quoted,
    Code,
    /// A person's name in a greeting or under a letter.
    Name,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Number,
        Kind::Percent,
        Kind::Money,
        Kind::Quantity,
        Kind::Date,
        Kind::Time,
        Kind::Id,
        Kind::Email,
        Kind::Url,
        Kind::Path,
        Kind::Quoted,
        Kind::Code,
        Kind::Name,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Number => "number",
            Kind::Percent => "percent",
            Kind::Money => "money",
            Kind::Quantity => "quantity",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Id => "id",
            Kind::Email => "email",
            Kind::Url => "url",
            Kind::Path => "path",
            Kind::Quoted => "quoted",
            Kind::Code => "code",
            Kind::Name => "name",
        }
    }

    pub const fn is_numeric(self) -> bool {
        matches!(self, Kind::Number | Kind::Percent | Kind::Money | Kind::Quantity)
    }

    pub const fn is_id(self) -> bool {
        matches!(self, Kind::Id | Kind::Email | Kind::Url | Kind::Path)
    }

    pub const fn is_date(self) -> bool {
        matches!(self, Kind::Date | Kind::Time)
    }
}

/// One value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// Equal for two spellings of one value. The number alone where there is a unit.
    pub canonical: String,
    pub unit: Option<Unit>,
    /// May as well be no value ("which one").
    pub is_soft: bool,
}

impl Value {
    fn new(kind: Kind, start: usize, end: usize, canonical: String) -> Self {
        Self { kind, start, end, canonical, unit: None, is_soft: false }
    }

    /// Whether both name the same thing; a unit that one leaves out is taken to be the other's.
    pub fn equals(&self, other: &Self) -> bool {
        let comparable = self.kind == other.kind || self.kind.is_numeric() && other.kind.is_numeric();
        let units_fit = match (self.unit, other.unit) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        comparable && units_fit && self.canonical == other.canonical
    }
}

/// What a reader sees.
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) tokens: &'a mut [Token],
    pub(crate) lexicon: &'a Lexicon,
    pub(crate) language: Language,
}

/// A value and the first token behind it.
type Found = Option<(Value, usize)>;

/// All values, in order. Tokens inside a value are marked.
pub(crate) fn scan(source: &mut Source<'_>) -> Vec<Value> {
    let mut values = quoted::scan(source);
    let mut covered = 0;
    let mut next = 0;
    while next < source.tokens.len() {
        let token = source.tokens[next];
        let found = if token.is_symbol { None } else { read(source, next) };
        let Some((mut value, after)) = found else {
            next += 1;
            continue;
        };
        if !value.is_soft {
            source.tokens[next..after].iter_mut().for_each(|token| token.is_value = true);
        }
        value.start = value.start.max(covered);
        covered = value.end;
        values.push(value);
        next = after.max(next + 1);
    }
    values.extend(name::scan(source));
    values.sort_by_key(|value| (value.start, std::cmp::Reverse(value.end)));
    without_crossings(values)
}

/// Of two that overlap and of which neither holds the other, the second is none; a quotation, which says less than what
/// stands in it, makes way.
fn without_crossings(values: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::with_capacity(values.len());
    let (mut outer, mut inner) = (0, 0);
    for value in values {
        let crosses = value.start < outer && value.end > outer || value.start < inner;
        if crosses
            && kept.last().is_some_and(|last| last.end == outer && matches!(last.kind, Kind::Quoted | Kind::Code))
        {
            kept.pop();
            outer = value.end;
            kept.push(value);
            continue;
        }
        if !crosses {
            if value.start >= outer {
                outer = value.end;
            } else {
                inner = value.end;
            }
            kept.push(value);
        }
    }
    kept
}

fn read(source: &Source<'_>, at: usize) -> Found {
    let token = source.tokens[at];
    let first = source.text.as_bytes()[token.start];
    if !first.is_ascii() && token.word.month == 0 && token.word.weekday == 0 && token.word.number.is_none() {
        return None;
    }
    web::read(source, at)
        .or_else(|| id::read(source, at))
        .or_else(|| date::read(source, at))
        .or_else(|| number::read(source, at))
}

/// The first token at or behind byte `end`.
fn token_after(source: &Source<'_>, at: usize, end: usize) -> usize {
    let tokens = &source.tokens[at..];
    at + tokens.iter().position(|token| token.start >= end).unwrap_or(tokens.len())
}

/// How many bytes at `from` are ASCII digits.
fn digits(bytes: &[u8], from: usize) -> usize {
    bytes.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests;
