//! A JSON object with one field changed: every byte but those of that field's value stays as it was.

use serde_json::value::RawValue;

use super::json::fields;

/// The object with another value, given as JSON, of a field that it names once; `None` where it does not.
pub(crate) fn replaced(object: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    let mut named = fields(object).ok()?.into_iter().filter(|(field, _)| field == name);
    let (Some((_, old)), None) = (named.next(), named.next()) else { return None };
    let place = place(object, old)?;
    let mut out = Vec::with_capacity(object.len() + value.len());
    out.extend_from_slice(&object[..place.start]);
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(&object[place.end..]);
    Some(out)
}

/// The same, with the field as its last where it has none of that name; `None` where the bytes are no object, or name it
/// twice.
pub(crate) fn with_field(object: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    let fields = fields(object).ok()?;
    if fields.iter().any(|(field, _)| field == name) {
        return replaced(object, name, value);
    }
    appended(object, &format!("{}:{value}", serde_json::to_string(name).ok()?))
}

/// The object with one more field, given with its name as JSON, as its last.
pub(crate) fn appended(object: &[u8], field: &str) -> Option<Vec<u8>> {
    let end = object.iter().rposition(|byte| *byte == b'}')?;
    let is_empty = fields(object).ok()?.is_empty();
    let mut out = Vec::with_capacity(object.len() + field.len() + 1);
    out.extend_from_slice(&object[..end]);
    if !is_empty {
        out.push(b',');
    }
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(&object[end..]);
    Some(out)
}

/// Where a value stands in the bytes that it was read from.
fn place(object: &[u8], value: &RawValue) -> Option<std::ops::Range<usize>> {
    let text = value.get();
    let start = (text.as_ptr() as usize).checked_sub(object.as_ptr() as usize)?;
    (object.get(start..start + text.len()) == Some(text.as_bytes())).then_some(start..start + text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_is_changed_and_nothing_else() {
        let check = |object: &str, expected: Option<&str>| {
            let changed = with_field(object.as_bytes(), "n", "[7]").map(|out| String::from_utf8(out).expect("text"));
            assert_eq!(changed.as_deref(), expected, "{object}");
        };
        check(r#" { "a" : 1.50 , "n" :null, "b":{"n":1} } "#, Some(r#" { "a" : 1.50 , "n" :[7], "b":{"n":1} } "#));
        check(r#"{"\u006e":1}"#, Some(r#"{"\u006e":[7]}"#));
        check("{ \"a\":{}\n}\r\n", Some("{ \"a\":{}\n,\"n\":[7]}\r\n"));
        check("{}", Some(r#"{"n":[7]}"#));
        check(r#"{"n":1,"n":2}"#, None);
        check("[1]", None);
        check("{", None);
    }
}
