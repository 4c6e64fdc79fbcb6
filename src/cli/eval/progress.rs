//! How far a pass is, on stderr, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `length` steps of the pass called `name`.
pub(super) fn bar(name: &'static str, length: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix:>9} [{bar:40}] {pos}/{len}, {eta} left")?.progress_chars("=> ");
    Ok(ProgressBar::new(length as u64).with_style(style).with_prefix(name))
}
