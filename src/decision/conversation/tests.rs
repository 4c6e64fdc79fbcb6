use proptest::prelude::*;

use super::*;

/// Turns by turns: user first, then assistant, and so on.
fn turns(texts: &[&str]) -> Vec<Turn> {
    let roles = [Speaker::User, Speaker::Assistant].into_iter().cycle();
    roles.zip(texts).map(|(role, text)| Turn::new(role, [*text], Default::default())).collect()
}

fn may_match(a: (&[&str], &str), b: (&[&str], &str)) -> bool {
    let guards = Guards::default();
    let (turns_a, turns_b) = (turns(a.0), turns(b.0));
    let a = Conversation { turns: &turns_a, question: a.1 };
    let b = Conversation { turns: &turns_b, question: b.1 };
    let both = [a.may_match(&b, &guards), b.may_match(&a, &guards)];
    assert_eq!(both[0], both[1], "the same both ways");
    both[0]
}

#[test]
fn contexts() {
    fn check(a: &[&str], b: &[&str], expected: bool) {
        assert_eq!(may_match((a, "And then?"), (b, "And then?")), expected, "{a:?} and {b:?}");
    }
    check(&["I lost my card."], &["My card is gone."], true);
    check(&["I lost my card.", "Sorry!"], &["i  lost my CARD.", "sorry!"], true);
    // Nothing said is another context than anything.
    check(&[], &["I lost my card."], false);
    check(&[], &[], false);
    // Each names something that the other does not.
    check(&["My order 1234 is late."], &["My order 5678 is late."], false);
    check(&["We fly to Spain."], &["We fly to Norway."], false);
    check(&["it was on 3 May"], &["it was on 4 May"], false);
    check(&["My order 1234 is late."], &["My order is late."], true);
    // One turn among equal ones was meant.
    check(&["Hi", "What is it?", "I want to leave."], &["Hi", "What is it?", "I want to stay."], false);
    check(&["Help me.", "Shall I cancel it?"], &["Help me.", "Shall I upgrade it?"], false);
    // More turns are more chatter.
    check(&["I lost my card."], &["I lost my card.", "Sorry!", "Never mind."], true);
    check(&["I lost my card.", "Sorry!", "Bad day."], &["I lost my card.", "Sorry!", "Nasty day."], false);
}

/// What follows in a conversation is asked after what came before it.
#[test]
fn one_conversation_never_matches_itself() {
    fn check(a: (&[&str], &str), b: (&[&str], &str), expected: bool) {
        assert_eq!(may_match(a, b), expected, "{a:?} and {b:?}");
    }
    let start = ["Tell me a story.", "Once upon a time."];
    check(
        (&start, "Go on."),
        (&["Tell me a story.", "Once upon a time.", "Go on.", "There was a king."], "Go on."),
        false,
    );
    check(
        (&start, "go  on."),
        (&["Tell me a story.", "Long ago.", "Go on.", "A queen.", "Go on.", "The end."], "More!"),
        false,
    );
    check((&start, "Go on."), (&["Tell a story please.", "A cat sat.", "Go ahead.", "It slept."], "Go on."), true);
}

#[test]
fn a_long_conversation_is_not_compared() {
    let long = "word ".repeat(4000);
    assert!(!may_match((&[&long], "?"), (&["word"], "?")));
}

#[test]
fn the_lower_similarity_counts() {
    let piece = |role, text: &'static str, vector: [f32; 2]| {
        (Piece { role, text }, Embedding::new(vector.to_vec()).expect("a vector"))
    };
    let a = [piece(Speaker::User, "a", [1.0, 0.0]), piece(Speaker::Assistant, "a", [0.0, 1.0])];
    let same = similarity(&a, &a).expect("similarity");
    assert!((same.get() - 1.0).abs() < 1e-6);
    // The user said something else; what the assistant said outweighs it in the whole.
    let b = [piece(Speaker::User, "a", [-1.0, 0.0]), piece(Speaker::Assistant, "aaaaaaaaa", [0.0, 1.0])];
    assert!((similarity(&a, &b).expect("similarity").get() + 1.0).abs() < 1e-6);
    // The user said the same, and the assistant another thing.
    let c = [piece(Speaker::User, "a", [1.0, 0.0]), piece(Speaker::Assistant, "aaaaaaaaa", [0.0, -1.0])];
    assert!(similarity(&a, &c).expect("similarity").get() < 0.0);
    assert_eq!(similarity(&a, &[]), None);
}

#[test]
fn pieces_are_of_the_parties_only() {
    let mut turns = turns(&["one", "two"]);
    turns.insert(0, Turn::new(Speaker::System, ["be brief"], Default::default()));
    let pieces = Conversation { turns: &turns, question: "three" }.pieces();
    let texts: Vec<_> = pieces.iter().map(|piece| (piece.role, piece.text)).collect();
    assert_eq!(texts, [(Speaker::User, "one"), (Speaker::Assistant, "two")]);
}

proptest! {
    #[test]
    fn cutting_loses_nothing_but_space(text in "([a-zé世]{1,30}[ .\n]{0,2}){0,80}") {
        let pieces = cut(&text);
        prop_assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX && !piece.is_empty()));
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(letters(&pieces.concat()), letters(&text));
    }

    #[test]
    fn the_longest_part_of_both(a in "[abc]{0,8}", b in "[abc]{0,8}") {
        let split = |text: &str| -> Vec<String> { text.chars().map(String::from).collect() };
        let (x, y) = (split(&a), split(&b));
        let length = in_both(&x, &y);
        prop_assert_eq!(length, in_both(&y, &x));
        prop_assert!(length <= x.len().min(y.len()));
        prop_assert_eq!(length == x.len() && length == y.len(), a == b);
        let mut more = x.clone();
        more.extend(y.iter().cloned());
        prop_assert!(in_both(&more, &y) == y.len() && in_both(&more, &x) == x.len());
    }
}
