//! What does a dataset say? Lines to rows, each field checked.
//!
//! An error names file, line and field, and the value where it is a label or an id; never a prompt's text. This file
//! does not know what is measured.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::args::Shape;

/// One line of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// As written: a string or a number.
    pub(super) id: Value,
    pub(super) kind: Option<String>,
    pub(super) content: Content,
}

/// What a row asks, and what is known of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Pair { a: String, b: String, label: Option<bool> },
    Arrival { text: String, context: Option<String>, class: Option<String> },
    Conversations { a: Vec<Value>, b: Vec<Value>, label: Option<bool> },
}

/// Reads the dataset, or its first `limit` rows. Blank lines are skipped.
///
/// # Errors
/// The file cannot be read, a line is malformed, or there is none.
pub(super) fn read(path: &Path, shape: Shape, limit: Option<usize>) -> Result<Vec<Row>, DatasetError> {
    let unreadable = |source| DatasetError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let bytes: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).map_err(unreadable)?),
        _ => Box::new(file),
    };
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(bytes).lines().enumerate() {
        if limit.is_some_and(|limit| rows.len() >= limit) {
            break;
        }
        let malformed = |cause| DatasetError::Malformed { path: path.to_owned(), line: index + 1, cause };
        let line = line.map_err(|error| malformed(format!("cannot be read: {error}")))?;
        if !line.trim().is_empty() {
            rows.push(Row::parse(&line, shape).map_err(malformed)?);
        }
    }
    if rows.is_empty() { Err(DatasetError::Empty { path: path.to_owned() }) } else { Ok(rows) }
}

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatasetError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: line {line}: {cause}", path.display())]
    Malformed { path: PathBuf, line: usize, cause: String },
    #[error("{}: there are no rows", path.display())]
    Empty { path: PathBuf },
}

impl Row {
    fn parse(line: &str, shape: Shape) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| {
            // serde_json adds a position within this line that reads like one within the file.
            let message = error.to_string();
            let cause = message.split(" at line ").next().unwrap_or_default();
            format!("no JSON: {cause} (column {})", error.column())
        })?;
        let fields = match value {
            Value::Object(fields) => Fields(fields),
            other => return Err(format!("expected an object, found {}", type_of(&other))),
        };
        let content = match shape {
            Shape::Pairs => Content::Pair { a: fields.text("a")?, b: fields.text("b")?, label: fields.label()? },
            Shape::Stream => Content::Arrival {
                text: fields.text("text")?,
                context: fields.text_if_present("context")?,
                class: fields.class()?,
            },
            Shape::Conversations => {
                Content::Conversations { a: fields.messages("a")?, b: fields.messages("b")?, label: fields.label()? }
            }
        };
        Ok(Self { id: fields.id()?, kind: fields.text_if_present("kind")?, content })
    }

    fn label(&self) -> Option<bool> {
        match &self.content {
            Content::Pair { label, .. } | Content::Conversations { label, .. } => *label,
            Content::Arrival { .. } => None,
        }
    }

    fn class(&self) -> Option<&str> {
        match &self.content {
            Content::Arrival { class, .. } => class.as_deref(),
            Content::Pair { .. } | Content::Conversations { .. } => None,
        }
    }

    /// Whether answering this row with the answer of `served` is right; `None` where the labels do not say.
    ///
    /// A pair's label speaks of its own `a`, so it holds whether or not anything was served.
    pub(super) fn is_right(&self, served: Option<&Row>) -> Option<bool> {
        self.label().or_else(|| Some(self.class()? == served?.class()?))
    }
}

/// What the labels of a dataset say as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Balance {
    /// Rows that something earlier may answer: labelled 1, or of a class that occurred before.
    pub(super) positives: usize,
    /// Rows that nothing earlier may answer.
    pub(super) negatives: usize,
}

impl Balance {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut seen = HashSet::new();
        let answerable = |row: &'_ Row, is_new: bool| row.label().or_else(|| row.class().map(|_| !is_new));
        let mut balance = Self { positives: 0, negatives: 0 };
        for row in rows {
            let is_new = row.class().is_some_and(|class| seen.insert(class.to_owned()));
            match answerable(row, is_new) {
                Some(true) => balance.positives += 1,
                Some(false) => balance.negatives += 1,
                None => {}
            }
        }
        balance
    }

    /// Whether any row is labelled.
    pub(super) fn is_known(self) -> bool {
        self.positives + self.negatives > 0
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    /// The field's value; null counts as absent.
    fn present(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, String> {
        self.present(name).ok_or_else(|| format!("field {name:?} is missing"))
    }

    fn text(&self, name: &str) -> Result<String, String> {
        string(name, self.required(name)?)
    }

    fn text_if_present(&self, name: &str) -> Result<Option<String>, String> {
        self.present(name).map(|value| string(name, value)).transpose()
    }

    fn messages(&self, name: &str) -> Result<Vec<Value>, String> {
        match self.required(name)? {
            Value::Array(messages) => Ok(messages.clone()),
            other => Err(format!("field {name:?}: expected a list of messages, found {}", type_of(other))),
        }
    }

    fn id(&self) -> Result<Value, String> {
        match self.required("id")? {
            id @ (Value::String(_) | Value::Number(_)) => Ok(id.clone()),
            other => Err(format!("field \"id\": expected a string or a number, found {}", shown(other))),
        }
    }

    fn label(&self) -> Result<Option<bool>, String> {
        match self.present("label").map(|label| (label, label.as_u64())) {
            None => Ok(None),
            Some((_, Some(0))) => Ok(Some(false)),
            Some((_, Some(1))) => Ok(Some(true)),
            Some((other, _)) => Err(format!("field \"label\": expected 0 or 1, found {}", shown(other))),
        }
    }

    /// The class as JSON, so that 1 and "1" are two classes.
    fn class(&self) -> Result<Option<String>, String> {
        match self.present("class") {
            None => Ok(None),
            Some(class @ (Value::String(_) | Value::Number(_))) => Ok(Some(class.to_string())),
            Some(other) => Err(format!("field \"class\": expected a string or a number, found {}", shown(other))),
        }
    }
}

fn string(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("field {name:?}: expected a string, found {}", type_of(other))),
    }
}

/// The value of a label or an id, cut to a readable length.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX { text } else { text.chars().take(SHOWN_MAX).chain(['…']).collect() }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

const SHOWN_MAX: usize = 40;

#[cfg(test)]
mod tests;
