//! What a model must be for this forward, and what a text must be for a model.
//!
//! Anything else is refused by name, before any work: the caller has a slower way for models, none for such texts.

/// The sizes of a BERT encoder with absolute positions and exact GELU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub vocabulary: usize,
    /// The longest text in tokens.
    pub positions: usize,
    pub hidden: usize,
    pub heads: usize,
    /// The inner width of the feed-forward part.
    pub inner: usize,
    pub layers: usize,
    pub norm_epsilon: f32,
}

/// Why weights cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// Another kind of model: to be run some other way.
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("this processor has not the instructions for {0}")]
    Unavailable(&'static str),
    #[error("tensor {0} is missing")]
    Missing(String),
    #[error("tensor {tensor} has shape {found:?}, not {expected:?}")]
    Misshapen { tensor: String, expected: Vec<usize>, found: Vec<usize> },
    /// A weight is infinite or no number.
    #[error("tensor {0} holds a value that is not finite")]
    NotFinite(String),
}

/// Why a text has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("there are no tokens")]
    Empty,
    #[error("there are {tokens} tokens, the window is {window}")]
    TooLong { tokens: usize, window: usize },
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// The model's sums overflowed, or cancelled to nothing.
    #[error("the model gave no finite direction")]
    NoDirection,
}

impl Shape {
    /// The width of a head.
    pub(super) fn width(&self) -> usize {
        self.hidden / self.heads
    }

    pub(super) fn check(&self) -> Result<(), WeightsError> {
        let refuse = |why| Err(WeightsError::Unsupported(why));
        let Self { vocabulary, positions, hidden, heads, inner, layers, norm_epsilon } = *self;
        if vocabulary == 0 || positions == 0 || layers == 0 {
            return refuse("a vocabulary, positions and layers are needed");
        }
        if hidden == 0 || !hidden.is_multiple_of(64) {
            return refuse("the hidden size is not a multiple of 64");
        }
        if heads == 0 || !matches!((hidden % heads, hidden / heads), (0, 32 | 64)) {
            return refuse("the attention heads are not 32 or 64 wide");
        }
        if inner == 0 || !inner.is_multiple_of(64) {
            return refuse("the feed-forward size is not a multiple of 64");
        }
        if !(0.0..1.0).contains(&norm_epsilon) {
            return refuse("the epsilon of LayerNorm is not between 0 and 1");
        }
        Ok(())
    }

    pub(super) fn check_text(&self, ids: &[u32]) -> Result<(), InputError> {
        if ids.is_empty() {
            return Err(InputError::Empty);
        }
        if ids.len() > self.positions {
            return Err(InputError::TooLong { tokens: ids.len(), window: self.positions });
        }
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            Some(id) => Err(InputError::UnknownToken(*id)),
            None => Ok(()),
        }
    }
}
