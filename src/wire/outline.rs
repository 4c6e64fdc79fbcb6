//! What routing reads of a provider request, and the one field that it writes.

use serde::Deserialize;
use serde_json::Value;

use super::edit::replaced;

/// A request body, reduced to what decides where it goes and how its answer must look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Empty where none is named.
    pub model: String,
    pub wants_stream: bool,
}

impl Outline {
    /// Of a body that every parser reads alike; any other is the provider's to refuse, and names no model.
    pub fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Fields {
            model: Option<Value>,
            stream: Option<Value>,
        }

        match serde_json::from_slice::<Fields>(body) {
            Ok(Fields { model: Some(Value::String(model)), stream }) => {
                Self { model, wants_stream: stream == Some(Value::Bool(true)) }
            }
            _ => Self::default(),
        }
    }
}

/// The body with another model in it; every byte but those of the model's value is as it was. `None` where the body is
/// no object that names its model once.
pub fn with_model(body: &[u8], model: &str) -> Option<Vec<u8>> {
    replaced(body, "model", &serde_json::to_string(model).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outlines() {
        let check = |body: &str, model: &str, wants_stream: bool| {
            assert_eq!(Outline::read(body.as_bytes()), Outline { model: model.into(), wants_stream }, "{body}");
        };
        check(r#"{"model":"m","stream":true}"#, "m", true);
        check(r#"{"messages":[{"model":"x"}],"mod\u0065l":"m"}"#, "m", false);
        check(r#"{"model":"m","stream":"true"}"#, "m", false);
        check(r#"{"model":7,"stream":true}"#, "", false);
        check(r#"{"model":"m","model":"n"}"#, "", false);
        check("[]", "", false);
        check("{", "", false);
        check("", "", false);
    }

    #[test]
    fn one_value_is_replaced() {
        let check = |body: &str, expected: Option<&str>| {
            let replaced = with_model(body.as_bytes(), "a\"b").map(|body| String::from_utf8(body).expect("text"));
            assert_eq!(replaced.as_deref(), expected, "{body}");
        };
        check(
            r#" {"x" : 1.50, "model"  : "m" ,"y":{"model":"z"}} "#,
            Some(r#" {"x" : 1.50, "model"  : "a\"b" ,"y":{"model":"z"}} "#),
        );
        check(r#"{"mod\u0065l":"m"}"#, Some(r#"{"mod\u0065l":"a\"b"}"#));
        check(r#"{"model":null}"#, Some(r#"{"model":"a\"b"}"#));
        check(r#"{"model":"m","model":"n"}"#, None);
        check("{}", None);
        check("[]", None);
        check(r#"{"model":"m""#, None);
    }

    proptest! {
        #[test]
        fn everything_around_the_model_stays(
            before in "[ \\t\\n]{0,3}", name in "[a-l]{1,4}", text in ".{0,12}", model in ".{0,12}", after in ".{0,12}",
        ) {
            let quoted = |text: &str| Value::String(text.to_owned()).to_string();
            let (head, tail) = (
                format!("{before}{{{}: {} ,\"model\":{before}", quoted(&name), quoted(&text)),
                format!("{before}, \"z\":{}}}", quoted(&after)),
            );
            let body = format!("{head}{}{tail}", quoted("m"));
            let replaced = with_model(body.as_bytes(), &model).expect("an object with a model");
            prop_assert!(replaced.starts_with(head.as_bytes()) && replaced.ends_with(tail.as_bytes()));
            prop_assert_eq!(Outline::read(&replaced).model, model);
            prop_assert_eq!(with_model(&replaced, "m").expect("still one"), body.as_bytes());
        }
    }
}
