//! The progress bars; they show on standard error, and only if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts to `length`, with a message behind it.
pub(crate) fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:40} {percent:>3} % {msg}");
    // The template is fixed; should it ever be wrong, the default style does as well.
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━━╌"));
    }
    bar
}
