//! One error of a configuration: where, what, and what was probably meant.

use std::fmt;
use std::ops::Range;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The offending line.
    pub text: String,
    /// How many characters of it offend.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// About a range of a file's text.
    pub fn new(file: &str, source: &str, span: Range<usize>, message: String, hint: Option<String>) -> Diagnostic {
        let start = span.start.min(source.len());
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = source[line_start..].lines().next().unwrap_or("");
        let end = span.end.clamp(start, line_start + line.len().max(start - line_start));
        Diagnostic {
            file: file.to_owned(),
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            text: line.to_owned(),
            width: source.get(start..end).map_or(1, |part| part.chars().count()).max(1),
            message,
            hint,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if !self.text.trim().is_empty() {
            let margin = " ".repeat(self.line.to_string().len());
            write!(f, "\n{margin} |\n{} | {}\n{margin} | ", self.line, self.text)?;
            write!(f, "{}{}", " ".repeat(self.column - 1), "^".repeat(self.width))?;
        }
        self.hint.iter().try_for_each(|hint| write!(f, "\n  help: {hint}"))
    }
}
