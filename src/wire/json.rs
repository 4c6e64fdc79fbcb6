//! JSON that every parser reads alike.
//!
//! An object that names a key twice means one thing to one parser and another to the next; nearhit and the provider
//! must not disagree about what was asked, so it is refused. So are depths over 128, lone surrogates, invalid UTF-8
//! and numbers beyond a double (by serde_json).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// # Errors
/// The bytes are not one JSON value, or an object in it names a key twice.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

/// The object without the named fields, every other byte of its values as it was.
///
/// # Errors
/// The bytes are not one JSON object.
pub fn without_fields(object: &[u8], names: &[&str]) -> Result<Vec<u8>, serde_json::Error> {
    let fields = fields(object)?;
    let mut out = vec![b'{'];
    for (name, value) in fields.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name)?;
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    Ok(out)
}

/// The fields of an object in order, names as they mean, values as they stand there.
///
/// # Errors
/// The bytes are not one JSON object.
pub fn fields(object: &[u8]) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
    serde_json::from_slice(object).map(|RawFields(fields)| fields)
}

struct RawFields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<RawFields<'de>, A::Error> {
                let mut raw = Vec::new();
                while let Some(field) = fields.next_entry()? {
                    raw.push(field);
                }
                Ok(RawFields(raw))
            }
        }

        from.deserialize_map(Fields)
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} appears twice in one object")));
            }
            let Strict(value) = fields.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_out_and_nothing_else_is_touched() {
        let from = br#" {"model" : "m", "cache":{"ttl": 1}, "temperature": 1.50, "messages": [ {"a":"\u00e9"} ], "nearhit":{} } "#;
        let without = without_fields(from, &["cache", "nearhit"]).expect("an object");
        assert_eq!(without, br#"{"model":"m","temperature":1.50,"messages":[ {"a":"\u00e9"} ]}"#);
        assert_eq!(without_fields(b"{}", &["x"]).expect("an object"), b"{}");
        assert!(without_fields(b"[]", &["x"]).is_err());
    }

    #[test]
    fn agrees_with_serde_json_except_on_repeated_keys() {
        fn check(text: &str, valid: bool) {
            let strict = parse(text.as_bytes());
            assert_eq!(strict.is_ok(), valid, "{text:.60}");
            if let Ok(value) = strict {
                assert_eq!(value, serde_json::from_str::<Value>(text).expect("lenient JSON is a superset"));
            }
        }
        check(r#"{"a":[1,-2,3.5,"x",null,true,{"b":{}}],"c":"\u00e9"}"#, true);
        check("{}", true);
        check("[]", true);
        check(r#"{"a":1,"a":1}"#, false);
        check(r#"[{"x":{"a":1,"b":2,"a":3}}]"#, false);
        check("", false);
        check("{", false);
        check("{} x", false);
        check("\u{feff}{}", false);
        check(r#""\ud800""#, false);
        check("NaN", false);
        check("1e999", false);
        check(&format!("{}1{}", "[".repeat(127), "]".repeat(127)), true);
        check(&format!("{}1{}", "[".repeat(129), "]".repeat(129)), false);
        assert!(parse(b"\"\xff\"").is_err());
    }
}
