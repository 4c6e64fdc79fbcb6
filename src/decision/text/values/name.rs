//! Names of the people who write and are written to: they say nothing about what is asked.

use super::{Kind, Source, Value};

/// Marks the names' tokens as volatile.
pub(super) fn scan(source: &mut Source<'_>) -> Vec<Value> {
    let mut values = Vec::new();
    values.extend(after_greeting(source));
    values.extend(before_end(source));
    values
}

/// `Hi Ada,` at the very start: the name ends at a comma, an exclamation mark or the end of the line.
fn after_greeting(source: &mut Source<'_>) -> Option<Value> {
    let first = source.tokens.first()?;
    if !first.word.is_greeting {
        return None;
    }
    let names =
        source.tokens[1..].iter().take(3).take_while(|token| is_name(token.is_capital, token.word.is_function)).count();
    let last = *source.tokens[1..].get(names.checked_sub(1)?)?;
    let closes = source.text[last.end..].trim_start_matches(' ').starts_with([',', '!', '\n']);
    closes.then(|| mark(source, 1, 1 + names))
}

/// A line of one to three capitalised words behind a line that says goodbye.
fn before_end(source: &mut Source<'_>) -> Option<Value> {
    let line = source.text.rfind('\n')?;
    let from = source.tokens.partition_point(|token| token.start < line);
    let names = source.tokens.len() - from;
    let before = source.text[..line].rfind('\n').map_or(0, |end| end + 1);
    let farewell = &source.tokens[source.tokens.partition_point(|token| token.start < before)..from];
    let is_signed = farewell.len() <= 4 && farewell.iter().any(|token| token.word.is_signature);
    let all_names = source.tokens[from..].iter().all(|token| is_name(token.is_capital, false));
    (is_signed && (1..=3).contains(&names) && all_names).then(|| mark(source, from, from + names))
}

fn is_name(is_capital: bool, is_function: bool) -> bool {
    is_capital && !is_function
}

fn mark(source: &mut Source<'_>, from: usize, to: usize) -> Value {
    let tokens = &mut source.tokens[from..to];
    tokens.iter_mut().for_each(|token| token.is_volatile = true);
    let (start, end) = (tokens[0].start, tokens[tokens.len() - 1].end);
    Value::new(Kind::Name, start, end, source.text[start..end].to_lowercase())
}
