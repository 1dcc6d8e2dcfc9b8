//! Floor 2: what users write. The TOML language, its errors and its schema, and the roles that expand to plan's model.
//! Here alone the words gateway and sidecar mean anything.

mod diagnostic;
mod keys;
mod language;
mod reader;
mod role;
mod schema;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};

use onehop_plan::Problem;
use onehop_plan::model::Model;

pub use diagnostic::Diagnostic;
pub use reader::Positions;
pub use role::gateway;
pub use schema::schema;
pub use units::duration;

/// A configuration that was read, and where its parts stand.
#[derive(Debug)]
pub struct Loaded {
    /// What is wanted.
    pub model: Model,
    positions: Positions,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum Failure {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says something that is wrong.
    Wrong(Vec<Diagnostic>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreadable { path, error } => {
                write!(f, "{}: cannot be read: {error}", path.display())
            }
            Failure::Wrong(diagnostics) => {
                for (at, diagnostic) in diagnostics.iter().enumerate() {
                    if at > 0 {
                        f.write_str("\n")?;
                    }
                    diagnostic.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl Loaded {
    /// Says where in the files a problem of the compiler's stands.
    pub fn explain(&self, problem: &Problem) -> Diagnostic {
        self.positions.explain(problem)
    }
}

/// The files that a path stands for: itself, or the `*.toml` of a folder in the order of their names.
///
/// # Errors
/// When it cannot be read.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

/// Reads a file, or a folder of them.
///
/// # Errors
/// When it cannot be read, or does not follow the language.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let unreadable = |path: &Path, error| Failure::Unreadable { path: path.to_owned(), error };
    let files = files(path).map_err(|error| unreadable(path, error))?;
    if files.is_empty() {
        return Err(unreadable(path, std::io::Error::new(std::io::ErrorKind::NotFound, "the folder holds no *.toml")));
    }
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
        texts.push((file.display().to_string(), text));
    }
    parse(&texts)
}

/// Reads texts, each with the name of its file.
///
/// # Errors
/// When one does not follow the language: everything that is wrong.
pub fn parse(texts: &[(String, String)]) -> Result<Loaded, Failure> {
    let mut model = Model::default();
    let mut positions = Positions::default();
    let mut wrong = Vec::new();
    for (name, text) in texts {
        wrong.extend(language::read(name, text, &mut model, &mut positions));
    }
    role::settle(&mut model);
    model.read_files();
    if wrong.is_empty() { Ok(Loaded { model, positions }) } else { Err(Failure::Wrong(wrong)) }
}
