//! Puts a run's headline into the README, between its marks.

use std::path::Path;

const BEGIN: &str = "<!-- headline -->\n";
const END: &str = "<!-- /headline -->\n";

/// The README with the table and the picture of that run; `folder` is how the README reaches it.
///
/// # Errors
/// When the README has no marks.
pub fn with_headline(readme: &str, table: &str, folder: &Path, machine: &str) -> Result<String, String> {
    let without = || format!("it has no {} and {}", BEGIN.trim(), END.trim());
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(without)?;
    let (_, after) = rest.split_once(END).ok_or_else(without)?;
    let folder = folder.display();
    Ok(format!(
        "{before}{BEGIN}The last run ([setup]({folder}/SETUP.md), [summary with intervals and the other \
         quantiles]({folder}/summary.md), raw data; {machine}, loopback): median\nlatency that the hop adds to a direct \
         request, and CPU time per request, at the same rate for all.\n\n{}\n\n![What the hop adds, and its CPU \
         time]({folder}/headline.svg)\n{END}{after}",
        table.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_replaced() {
        let readme = format!("# A\n\n{BEGIN}old\n{END}\nrest\n");
        let new = with_headline(&readme, "| t |\n", Path::new("results/x"), "two CPUs").expect("has marks");
        assert!(
            new.starts_with("# A\n\n<!-- headline -->\nThe last run") && new.ends_with("<!-- /headline -->\n\nrest\n")
        );
        assert!(new.contains("| t |") && new.contains("(results/x/headline.svg)") && !new.contains("old"));
        assert_eq!(with_headline(&new, "| t |\n", Path::new("results/x"), "two CPUs"), Ok(new));
        assert!(with_headline("nothing", "", Path::new("x"), "").is_err());
    }
}
