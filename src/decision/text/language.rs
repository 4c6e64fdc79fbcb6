//! The languages whose words are known here.

/// A language with a word list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    English,
    German,
    French,
    Spanish,
    Chinese,
    Japanese,
    Korean,
}

impl Language {
    pub const ALL: [Language; 7] = [
        Language::English,
        Language::German,
        Language::French,
        Language::Spanish,
        Language::Chinese,
        Language::Japanese,
        Language::Korean,
    ];

    /// Those written with spaces between words, in Latin letters.
    pub const LATIN: [Language; 4] = [Language::English, Language::German, Language::French, Language::Spanish];

    /// Whether words are looked for inside the text instead of between spaces.
    pub const fn is_unspaced(self) -> bool {
        matches!(self, Language::Chinese | Language::Japanese | Language::Korean)
    }

    /// Whether `1,5` is one and a half.
    pub const fn has_decimal_comma(self) -> bool {
        matches!(self, Language::German | Language::French | Language::Spanish)
    }

    /// Whether `3/12` is the third of December.
    pub const fn has_day_first(self) -> bool {
        matches!(self, Language::German | Language::French | Language::Spanish)
    }

    /// Whether a capital letter inside a sentence marks a name.
    pub const fn has_capital_names(self) -> bool {
        matches!(self, Language::English | Language::French | Language::Spanish)
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Language::English => include_str!("words/en.txt"),
            Language::German => include_str!("words/de.txt"),
            Language::French => include_str!("words/fr.txt"),
            Language::Spanish => include_str!("words/es.txt"),
            Language::Chinese => include_str!("words/zh.txt"),
            Language::Japanese => include_str!("words/ja.txt"),
            Language::Korean => include_str!("words/ko.txt"),
        }
    }

    /// Phrases that tie an answer to now or here.
    pub(crate) const fn perishable(self) -> &'static str {
        match self {
            Language::English => include_str!("words/perishable/en.txt"),
            Language::German => include_str!("words/perishable/de.txt"),
            Language::French => include_str!("words/perishable/fr.txt"),
            Language::Spanish => include_str!("words/perishable/es.txt"),
            Language::Chinese => include_str!("words/perishable/zh.txt"),
            Language::Japanese => include_str!("words/perishable/ja.txt"),
            Language::Korean => include_str!("words/perishable/ko.txt"),
        }
    }
}
