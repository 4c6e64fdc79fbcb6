//! Prefix-free hashing: two different sequences of fields never feed the hash the same bytes.
//!
//! Every field is a tag, a length and its bytes, so no value can borrow from its neighbour. JSON objects are hashed
//! with their keys sorted: the order in which a client writes keys is no part of what it asks.

use serde_json::{Map, Value};

/// A BLAKE3 hash in derive-key mode over tagged, length-prefixed fields; equal on every machine.
pub(crate) struct FieldHasher(blake3::Hasher);

impl FieldHasher {
    /// `context` names what is hashed and its version; two contexts never produce related hashes.
    pub(crate) fn new(context: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.tag(b'b', value.len());
        self.0.update(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Opens a list or map of `len` parts; the caller then hashes each part.
    pub(crate) fn parts(&mut self, len: usize) {
        self.tag(b'l', len);
    }

    pub(crate) fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(b'0', 0),
            Value::Bool(flag) => self.tag(b'?', usize::from(*flag)),
            Value::Number(number) => {
                let digits = number.to_string();
                self.tag(b'#', digits.len());
                self.0.update(digits.as_bytes());
            }
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.parts(items.len());
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(fields) => self.object(fields),
        }
    }

    pub(crate) fn object(&mut self, fields: &Map<String, Value>) {
        self.tag(b'{', fields.len());
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        for (key, field) in sorted {
            self.text(key);
            self.json(field);
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn tag(&mut self, tag: u8, len: usize) {
        self.0.update(&[tag]);
        self.0.update(&(len as u64).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hash(value: &Value) -> [u8; 32] {
        let mut hasher = FieldHasher::new("nearhit test");
        hasher.json(value);
        hasher.finish()
    }

    #[test]
    fn different_json_has_different_hashes() {
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(1),
            json!(0.0),
            json!("0"),
            json!(""),
            json!([]),
            json!({}),
            json!([null]),
            json!([[]]),
            json!(["a", "b"]),
            json!(["ab"]),
            json!(["a", ["b"]]),
            json!({"a": "b"}),
            json!({"a": {"b": null}}),
            json!([["a", "b"]]),
            json!({"ab": ""}),
            json!({"a": "", "b": ""}),
        ];
        for (i, a) in values.iter().enumerate() {
            for b in &values[i + 1..] {
                assert_ne!(hash(a), hash(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn key_order_does_not_matter() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).expect("valid JSON");
        let b: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).expect("valid JSON");
        assert_eq!(hash(&a), hash(&b));
    }
}
