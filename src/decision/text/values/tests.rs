//! Which values are found, and their canonical forms.

use proptest::prelude::*;

use crate::decision::text::Text;
use crate::decision::text::lexicon::Lexicon;
use crate::decision::text::values::{Kind, Value};

fn read(text: &str) -> Vec<Value> {
    Text::read(text, &Lexicon::new()).values
}

#[test]
fn canonical_forms() {
    fn check(text: &str, expected: &[(Kind, &str)]) {
        let found = read(text);
        let found: Vec<_> = found.iter().map(|value| (value.kind, value.canonical.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }
    check("1,000 and 1000.50", &[(Kind::Number, "1000"), (Kind::Number, "1000.5")]);
    check("Ich habe 1.234.567,89 Euro", &[(Kind::Money, "1234567.89")]);
    check("5 km, 5km and 5-km", &[(Kind::Quantity, "5"), (Kind::Quantity, "5"), (Kind::Quantity, "5")]);
    check("two hundred and five", &[(Kind::Number, "200"), (Kind::Number, "5")]);
    check("3.5 million dollars", &[(Kind::Money, "3500000")]);
    check("$20k or 20%", &[(Kind::Money, "20000"), (Kind::Percent, "20")]);
    check("3/4 of 1,2,3", &[(Kind::Number, "0.75"), (Kind::Number, "1"), (Kind::Number, "2"), (Kind::Number, "3")]);
    check("on 12 March 2024", &[(Kind::Date, "2024-03-12")]);
    check("on March 12th, 2024", &[(Kind::Date, "2024-03-12")]);
    check("on 3/12/24", &[(Kind::Date, "2024-03-12")]);
    check("am 12.3.2024 ist es so", &[(Kind::Date, "2024-03-12")]);
    check("le 12 mars 2024 à la maison", &[(Kind::Date, "2024-03-12")]);
    check("el 12 de marzo de 2024", &[(Kind::Date, "2024-03-12")]);
    check("2024年3月12日", &[(Kind::Date, "2024-03-12")]);
    check("2024년 3월 12일에", &[(Kind::Date, "2024-03-12")]);
    check("in Q3 2024", &[(Kind::Date, "2024-Q3")]);
    check("may I go in May", &[(Kind::Date, "-05")]);
    check("5pm, 5:30 p.m. and 17:45", &[(Kind::Time, "17:00"), (Kind::Time, "17:30"), (Kind::Time, "17:45")]);
    check("um 17 Uhr ist es", &[(Kind::Time, "17:00")]);
    check("tomorrow at noon", &[]);
    check("order #A-1234", &[(Kind::Id, "a1234")]);
    check("ticket ABC-1234", &[(Kind::Id, "abc1234")]);
    check("123e4567-e89b-12d3-a456-426614174000", &[(Kind::Id, "123e4567e89b12d3a456426614174000")]);
    check("version 1.2.3", &[(Kind::Id, "1.2.3")]);
    check("host 10.0.0.1", &[(Kind::Id, "10.0.0.1")]);
    check("mail Ada@Example.com.", &[(Kind::Email, "ada@example.com")]);
    check("see https://www.example.com/a/?", &[(Kind::Url, "example.com/a")]);
    check("edit /etc/hosts now", &[(Kind::Path, "/etc/hosts")]);
    check("say \"Hello  World\"", &[(Kind::Quoted, "hello world")]);
    check("run `ls -l`", &[(Kind::Code, "ls -l")]);
    check("Hello Ada, how are you?", &[(Kind::Name, "ada")]);
    check("which one", &[(Kind::Number, "1")]);
}

#[test]
fn a_megabyte_is_read_in_linear_time() {
    for part in ["\"a ", "`", "```a ", "1.", "1,", "/a", "a@", "«x", "two ", "#1-", "3/"] {
        assert!(read(&part.repeat(100_000 / part.len())).len() < 100_000, "{part}");
    }
}

proptest! {
    #[test]
    fn values_lie_in_the_text_and_do_not_cross(text in ".{0,60}", dense in "[0-9 .,:/#$€%apm\"`@k-]{0,60}") {
        for text in [text, dense] {
            let values = read(&text);
            for value in &values {
                prop_assert!(text.get(value.start..value.end).is_some_and(|written| !written.is_empty()));
            }
            for two in values.windows(2) {
                let (a, b) = (&two[0], &two[1]);
                prop_assert!(a.end <= b.start || a.start <= b.start && b.end <= a.end, "{a:?} crosses {b:?}");
            }
        }
    }
}
