//! What each guard refuses, and that exchanging the texts changes nothing.

use proptest::prelude::*;

use super::*;
use crate::decision::text::Text;
use crate::decision::text::lexicon::Lexicon;

fn refused(a: &str, b: &str) -> Option<Reason> {
    let lexicon = Lexicon::new();
    let (a, b) = (Text::read(a, &lexicon), Text::read(b, &lexicon));
    let verdict = refusal(&Pair::new(&a, &b, &lexicon));
    assert_eq!(verdict, refusal(&Pair::new(&b, &a, &lexicon)), "both orders");
    verdict
}

#[test]
fn what_differs() {
    fn check(a: &str, b: &str, reason: Reason) {
        assert_eq!(refused(a, b), Some(reason), "{a} | {b}");
    }
    check("Heat it for 5 minutes", "Heat it for 15 minutes", Reason::NumberDiffers);
    check("Run 5 km", "Run 5 miles", Reason::NumberDiffers);
    check("What is 7 + 3?", "What is 7 * 3?", Reason::NumberDiffers);
    check("It costs $20", "It costs 20 euros", Reason::NumberDiffers);
    check("Name the second moon", "Name the third moon", Reason::NumberDiffers);
    check("A table for twenty four", "A table for twenty five", Reason::NumberDiffers);
    check("Kosten 1.500,50 Euro?", "Kosten 1.500,60 Euro?", Reason::NumberDiffers);
    check("Open on Monday?", "Open on Tuesday?", Reason::DateDiffers);
    check("Call me at 5pm", "Call me at 17:30", Reason::DateDiffers);
    check("Due 2024-03-12", "Due March 13, 2024", Reason::DateDiffers);
    check("Is the museum open in March?", "Is the museum open on December 3?", Reason::DateDiffers);
    check("Is \"March\" 12 a holiday?", "Is \"March\" 13 a holiday?", Reason::DateDiffers);
    check("What is the pH of 0.00001 M HCl?", "What is the pH of 0.00003 M HCl?", Reason::NumberDiffers);
    check("What is 3.14159 squared?", "What is 3.14158 squared?", Reason::NumberDiffers);
    check("Is -5 degrees cold?", "Is 5 degrees cold?", Reason::NumberDiffers);
    check("Take .5 mg of it", "Take 5 mg of it", Reason::NumberDiffers);
    check(
        "Who made youtu.be/x and https://youtu.be/aB?",
        "Who made youtu.be/x and https://youtu.be/ab?",
        Reason::IdDiffers,
    );
    check("What is the capital of Niger?", "What is the capital of Nigeria?", Reason::EntityDiffers);
    check(
        "Which capital has the river I like best\nParis",
        "Which capital has the river I like best\nLondon",
        Reason::EntityDiffers,
    );
    check("2024年3月12日的新闻", "2024年3月13日的新闻", Reason::DateDiffers);
    check("Where is order #K-20418?", "Where is order #K-20419?", Reason::IdDiffers);
    check("Where is order #1-23?", "Where is order #12-3?", Reason::IdDiffers);
    check("Write to ada@example.com", "Write to bob@example.com", Reason::IdDiffers);
    check("Is this safe?", "Is this unsafe?", Reason::NegationDiffers);
    check("Renew it", "Don't renew it", Reason::NegationDiffers);
    check("When does it open?", "When does it close?", Reason::NegationDiffers);
    check("Ist das sicher?", "Ist das nicht sicher?", Reason::NegationDiffers);
    check("¿Abre la tienda hoy?", "¿Cierra la tienda hoy?", Reason::NegationDiffers);
    check("Est-ce que le parking est compris ?", "Est-ce que le parking n'est pas compris ?", Reason::NegationDiffers);
    check("如何打开通知？", "如何关闭通知？", Reason::NegationDiffers);
    check("朝食は含まれますか", "朝食は含まれませんか", Reason::NegationDiffers);
    check("조식이 포함되나요?", "조식이 포함되지 않나요?", Reason::NegationDiffers);
    check("How is the weather in Oslo?", "How is the weather in Quito?", Reason::EntityDiffers);
    check("a red scarf please", "a green scarf please", Reason::EntityDiffers);
    check("Sort a list in C++", "Sort a list in C#", Reason::EntityDiffers);
    check("Trains from Graz to Linz", "Trains from Linz to Graz", Reason::OrderDiffers);
    check("Turn an essay into a poem", "Turn a poem into an essay", Reason::OrderDiffers);
    check("Did Ann call Ben?", "Did Ben call Ann?", Reason::OrderDiffers);
    check("서울에서 부산까지", "부산에서 서울까지", Reason::OrderDiffers);
    check("Where is the station in this town?", "Wo ist der Bahnhof in dieser Stadt?", Reason::LanguageDiffers);
    check("How do US taxes work?", "How do us taxes work?", Reason::LossyText);
    check("open the gate", "open the\u{200b} gate", Reason::LossyText);
    check("I feel \u{1f600}", "I feel \u{1f622}", Reason::LossyText);
}

#[test]
fn what_does_not_differ() {
    fn check(a: &str, b: &str) {
        assert_eq!(refused(a, b), None, "{a} | {b}");
    }
    check("How do I reset my password?", "how can i reset my pasword");
    check("Pay 1,000 dollars", "Pay $1000");
    check("It takes two hours", "It takes 2 hours");
    check("Half of it", "1/2 of it");
    check("Meet at 5pm", "Meet at 17:00");
    check("On 12 March 2024", "On 2024-03-12");
    check("The talk of March 12th", "The talk of March 12, 2024");
    check("Is it not safe?", "Is it unsafe?");
    check("Isn't it raining?", "Is it raining?");
    check("I don't know how to pay", "How to pay");
    check("I can't log in", "How can I log in?");
    check("Who runs the United Nations?", "Who runs the UN?");
    check("Is Ann married to Ben?", "Is Ben married to Ann?");
    check("Ann and Ben", "Ben and Ann");
    check("Trains from Graz to Linz", "To Linz from Graz, trains");
    check("Hi Ada, where is my coat?", "Hi Ben, where is my coat?");
    check("learn SQL", "learn sql");
    check(
        "My landlord raised the rent twice since spring and I cannot pay it any more, what are my choices after 3 years here?",
        "Rent here went up again. I have lived in this flat for long and my salary stays the same, so which options do I have?",
    );
    check("", "");
}

#[test]
fn a_word_said_twice_has_one_opposite() {
    assert_eq!(refused("close close #K-20418", "open #K-20418"), Some(Reason::NegationDiffers));
}

proptest! {
    #[test]
    fn guards_are_symmetric(words in prop::collection::vec(0usize..WORDS.len(), 0..12), others in prop::collection::vec(0usize..WORDS.len(), 0..12)) {
        let text = |words: &[usize]| words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
        refused(&text(&words), &text(&others));
    }

    #[test]
    fn any_text_can_be_read_and_never_differs_from_itself(text in ".{0,60}", dense in "[0-9 .,:/#$€%apm\"`@k-]{0,30}") {
        prop_assert_eq!(refused(&text, &text), None);
        prop_assert_eq!(refused(&dense, &dense), None);
        refused(&text, &dense);
    }

    #[test]
    fn what_a_model_does_not_see_is_never_reused(text in "[a-z]{1,8}( [a-z]{1,8}){0,6}", at in 0usize..40, unseen in prop::sample::select(vec!['\u{200b}', '\u{202e}', '\u{feff}', '\u{e0041}', '\u{e000}', '\u{ad}', '\u{7}'])) {
        let mut changed = text.clone();
        changed.insert(at.min(text.len()), unseen);
        prop_assert!(refused(&text, &changed).is_some());
    }
}

const WORDS: [&str; 48] = [
    "how",
    "the",
    "from",
    "to",
    "Oslo",
    "Quito",
    "not",
    "no",
    "never",
    "open",
    "close",
    "safe",
    "unsafe",
    "5",
    "15",
    "two",
    "first",
    "second",
    "km",
    "miles",
    "$20",
    "2024-03-12",
    "March",
    "Monday",
    "#K-20418",
    "ada@example.com",
    "red",
    "green",
    "\"a quote\"",
    "`code`",
    "US",
    "us",
    "C++",
    "C#",
    "married",
    "and",
    "nicht",
    "pas",
    "不",
    "開",
    "안",
    "에서",
    "don't",
    "Isn't",
    "it",
    "all",
    "only",
    "UN",
];
