use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::guards::Guards;
use super::super::text::token;
use super::*;

#[test]
fn questions_of_now_and_here() {
    let (freshness, guards) = (Freshness::default(), Guards::default());
    let check = |text: &str, expected: bool| {
        assert_eq!(freshness.is_perishable(&guards.read(text)), expected, "{text}");
    };
    for text in [
        "What's the weather in Oslo?",
        "will it rain in Leeds tomorrow",
        "What time is it in Tokyo?",
        "whats today's date",
        "Who is the current CEO of Acme?",
        "latest news about the strike",
        "Coffee shops near me",
        "Where's the nearest pharmacy?",
        "What is the price of gold right now?",
        "usd to eur exchange rate",
        "How is traffic on the ring road?",
        "Is the museum open now?",
        "I moved in 2019. Which trains are running this week?",
        "when was the last time they won the cup",
        "who has scored the most goals in the league",
        "what is the population of Bergen",
        "Wie wird das Wetter morgen in Bremen?",
        "Wie viel Uhr ist es?",
        "Was sind die aktuellen Schlagzeilen?",
        "Gibt es hier in der Nähe eine Apotheke?",
        "Was kostet Strom diese Woche?",
        "Quel temps fait-il à Lyon aujourd'hui ?",
        "Quelle heure est-il ?",
        "Où est la pharmacie la plus proche ?",
        "Quel est le taux de change actuel ?",
        "¿Qué tiempo hace hoy en Sevilla?",
        "¿Qué hora es?",
        "¿Dónde hay una farmacia cerca de mí?",
        "¿Quién ganó el partido anoche?",
        "今天北京天气怎么样",
        "附近有什么好吃的餐厅",
        "现在几点了",
        "今日の東京の天気は？",
        "一番近い駅はどこですか",
        "最新のニュースを教えて",
        "오늘 서울 날씨 어때?",
        "근처에 약국이 있나요?",
        "지금 몇 시예요?",
    ] {
        check(text, true);
    }
    for text in [
        "How do I reset my password?",
        "What is the current density in a copper wire?",
        "How does alternating current work?",
        "Why does he visit now and then?",
        "Here is my code, why does it not compile?",
        "Translate \"see you today\" into Spanish.",
        "What does `Date.today` return?",
        "How does weather affect mood?",
        "Is this fake news?",
        "How do I improve my credit score?",
        "It broke last week. How do I return it?",
        "who has won the most games in 1998",
        "what was the population of Bergen in 1950",
        "Who wrote Faust?",
        "Wie setze ich mein Passwort zurück?",
        "Guten Morgen, wie ändere ich meine Adresse?",
        "Comment changer mon mot de passe ?",
        "¿Cómo cambio mi contraseña?",
        "如何重置密码",
        "「今天」用英语怎么说",
        "パスワードを変更する方法は",
        "비밀번호를 어떻게 바꾸나요?",
        "",
    ] {
        check(text, false);
    }
}

/// A letter or a report mentions today and asks something else.
#[test]
fn a_long_text_is_no_question() {
    let (freshness, guards) = (Freshness::default(), Guards::default());
    let long = format!("Summarise. {}", "Sales rose again today. ".repeat(100));
    assert!(!freshness.is_perishable(&guards.read(&long)));
}

/// What cannot be matched would go unnoticed.
#[test]
fn the_lists_are_well_formed() {
    for language in Language::ALL {
        let list = language.perishable();
        for line in list.lines().filter(|line| !line.starts_with('#')) {
            let class = line.split_once(": ").map(|(class, _)| class);
            assert!(matches!(class, Some("now" | "standing" | "not")), "{language:?}: {line}");
        }
        for (_, phrase) in phrases(list) {
            let parts: Vec<&str> = phrase.split_whitespace().filter(|part| !["*", "^", "$"].contains(part)).collect();
            assert!(!parts.is_empty() && phrase.to_lowercase() == phrase, "{language:?}: {phrase}");
            for part in parts.into_iter().filter(|_| !language.is_unspaced()) {
                let is_read = |word: &str| token::split(word).len() == 1;
                let is_read = part.split('|').all(is_read) || !part.contains('|') && part.split('\'').all(is_read);
                assert!(is_read, "{language:?}: {phrase}");
            }
        }
    }
}

#[test]
fn any_text_is_read() {
    let (freshness, guards) = (Freshness::default(), Guards::default());
    let texts = (".{0,80}", "[今天の날씨 today's?.\"^$*|]{0,40}");
    let read = TestRunner::default().run(&texts, |(any, mixed)| {
        for text in [any, mixed] {
            let once = freshness.is_perishable(&guards.read(&text));
            prop_assert_eq!(once, freshness.is_perishable(&guards.read(&text)));
        }
        Ok(())
    });
    read.expect("no text is too odd");
}
