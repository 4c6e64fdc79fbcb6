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
    check(
        "it is -5 or −5, not 3-5",
        &[(Kind::Number, "-5"), (Kind::Number, "-5"), (Kind::Number, "3"), (Kind::Number, "5")],
    );
    check("-$5 and (-1.50)", &[(Kind::Money, "-5"), (Kind::Number, "-1.5")]);
    check("take .5 mg or -.25 mg. 5 times", &[(Kind::Quantity, "0.5"), (Kind::Quantity, "-0.25"), (Kind::Number, "5")]);
    check("1/3 or 2/6 or 1.5/4", &[(Kind::Number, "1/3"), (Kind::Number, "1/3"), (Kind::Number, "0.375")]);
    check("see https://www.Example.com/Ab?Q=1#c", &[(Kind::Url, "example.com/Ab?Q=1#c")]);
}

/// Whatever the length, the last digit or letter counts.
#[test]
fn canonical_forms_are_exact() {
    fn check(a: &str, b: &str, equal: bool) {
        let [a, b] = [a, b].map(|text| (text, read(text)));
        let counts = (a.1.len(), b.1.len());
        assert_eq!(counts, (1, 1), "{} and {}", a.0, b.0);
        assert_eq!(a.1[0].equals(&b.1[0]), equal, "{} and {}", a.0, b.0);
    }
    check("pi is 3.14159265", "pi is 3.14159266", false);
    check("a mass of 1.00001 kg", "a mass of 1.00002 kg", false);
    check("0.1 of it", "0.10000000000000001 of it", false);
    check("9,007,199,254,740,992 grains", "9,007,199,254,740,993 grains", false);
    check("9007199254.740992 billion grains", "9007199254.740993 billion grains", false);
    check("1/3 of it", "0.3333 of it", false);
    check("1/8 of it", "0.125 of it", true);
    check("1.50 million", "1,500,000", true);
    let long = |end: &str| {
        [
            format!("see https://example.com/{}{end} now", "a/".repeat(400)),
            format!("edit /{}{end} now", "a/".repeat(400)),
            format!("order #{}{end} now", "A1".repeat(100)),
            format!("mail {}@example.{}{end} now", "a".repeat(200), "b".repeat(200)),
        ]
    };
    for (a, b) in long("x").iter().zip(&long("y")) {
        check(a, b, false);
        check(a, a, true);
    }
}

#[test]
fn a_megabyte_is_read_in_linear_time() {
    for part in ["\"a ", "`", "```a ", "1.", "1,", "/a", "a@", "«x", "two ", "#1-", "3/", ".5", "-1 ", "billion "] {
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
