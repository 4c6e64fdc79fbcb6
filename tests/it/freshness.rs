//! Which of many real questions depend on now or here? Measured where `NEARHIT_DATA` names the labelled questions.

use std::fs::File;
use std::io::{BufRead, BufReader};

use flate2::read::MultiGzDecoder;
use nearhit::decision::{Freshness, Guards};
use serde_json::Value;

use crate::support::variable;

#[test]
fn labelled_questions() {
    let Some(folder) = variable("NEARHIT_DATA") else { return };
    let (freshness, guards) = (Freshness::default(), Guards::default());
    let found = |name: &str| -> Vec<(bool, Value)> {
        let file = File::open(format!("{folder}/{name}.jsonl.gz")).expect("a dataset");
        let lines = BufReader::new(MultiGzDecoder::new(file)).lines();
        let rows = lines.map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("a row"));
        rows.map(|row| (freshness.is_perishable(&guards.read(row["text"].as_str().expect("a text"))), row)).collect()
    };

    for (kind, precision_least, recall_least) in [("temp", 0.9, 0.35), ("geo", 0.5, 0.1)] {
        let rows = found("dev/freshness_situated").into_iter().filter(|(_, row)| row["kind"] == kind);
        let rows: Vec<(bool, bool)> = rows.map(|(found, row)| (found, row["label"] == 1)).collect();
        let count = |wanted: fn(&(bool, bool)) -> bool| rows.iter().filter(|row| wanted(row)).count() as f64;
        let right = count(|(found, is)| *found && *is);
        let (precision, recall) = (right / count(|(found, _)| *found), right / count(|(_, is)| *is));
        println!("freshness_situated {kind}: precision {precision:.3}, recall {recall:.3}");
        assert!(precision > precision_least && recall > recall_least, "{kind}");
    }
    for (name, most) in [
        ("streams/stream_support", 0.07),
        ("streams/stream_qqp", 0.02),
        ("dev/intents_banking77", 0.03),
        ("dev/intents_bitext", 0.01),
    ] {
        let rows = found(name);
        let share = rows.iter().filter(|(found, _)| *found).count() as f64 / rows.len() as f64;
        println!("{name}: {:.2} % of {}", 100.0 * share, rows.len());
        assert!(share < most, "{name}");
    }
    for (name, intent) in [("hwu64", "weather_query"), ("clinc150", "time"), ("snips", "GetWeather")] {
        let rows = found(&format!("dev/intents_{name}"));
        let of_intent: Vec<bool> =
            rows.iter().filter(|(_, row)| row["intent"] == intent).map(|(found, _)| *found).collect();
        let recall = of_intent.iter().filter(|found| **found).count() as f64 / of_intent.len() as f64;
        println!("{name} {intent}: recall {recall:.3}");
        assert!(recall > 0.7, "{name} {intent}");
    }
}
