//! Reads all files of a policy, includes among them, into one list of rules.

use std::collections::BTreeMap;

use crate::error::{FileProblem, LoadError, Problem, Warning};
use crate::folder::{Folder, inside};
use crate::limits::{MAX_FILES, MAX_INCLUDE_DEPTH, MAX_RULES};
use crate::parser::{Statement, Syntax, lines, statement, translate};
use crate::rule::{Place, Rule};
use crate::token::{Token, shown};

/// What has been read so far.
#[derive(Default)]
pub(crate) struct Loader {
    pub(crate) rules: Vec<Rule>,
    pub(crate) warnings: Vec<Warning>,
    /// How many files were read, each inclusion counted.
    files: usize,
    /// The files that are being read, the outermost first.
    open: Vec<String>,
}

impl Loader {
    /// Reads every policy file of the folders, in the order of their names. A file hides those of
    /// the same name in later folders (`parser.py`, `load_policy_dirs`).
    pub(crate) fn folders(&mut self, folders: &[Folder]) -> Result<(), LoadError> {
        let mut files: BTreeMap<String, &Folder> = BTreeMap::new();
        for folder in folders {
            for name in folder.policy_files("")? {
                files.entry(name).or_insert(folder);
            }
        }
        for (name, folder) in files {
            self.named_file(folder, &name)?;
        }
        Ok(())
    }

    /// Reads one file that no line names.
    pub(crate) fn named_file(&mut self, folder: &Folder, path: &str) -> Result<(), LoadError> {
        let text = self.read(folder, path).map_err(|problem| LoadError::File {
            file: shown(path),
            problem,
        })?;
        self.text(folder, path, &text, Syntax::Policy)
    }

    fn read(&mut self, folder: &Folder, path: &str) -> Result<Vec<u8>, FileProblem> {
        if self.files >= MAX_FILES {
            return Err(FileProblem::TooMany);
        }
        self.files += 1;
        folder.read(path)
    }

    fn text(
        &mut self,
        folder: &Folder,
        path: &str,
        text: &[u8],
        syntax: Syntax,
    ) -> Result<(), LoadError> {
        self.open.push(path.to_owned());
        let file: std::sync::Arc<str> = path.into();
        for (line, content) in lines(text) {
            let place = Place {
                file: file.clone(),
                line,
            };
            let failed = |problem| LoadError::Line {
                place: place.clone(),
                problem,
            };
            let content = translate(content.map_err(failed)?, syntax);
            match statement(&content, syntax).map_err(failed)? {
                Statement::Nothing => {}
                Statement::Rule(services, words) => {
                    let rule = Rule::parse(services, &words, place.clone()).map_err(failed)?;
                    self.add(rule).map_err(failed)?;
                }
                Statement::Include(path) => self.include(folder, path, &place, syntax)?,
                Statement::IncludeService(services, path) => {
                    self.include(folder, path, &place, Syntax::Service(&services))?;
                }
                Statement::IncludeDir(path) => self.include_folder(folder, path, &place)?,
            }
        }
        self.open.pop();
        Ok(())
    }

    fn include(
        &mut self,
        folder: &Folder,
        path: &str,
        place: &Place,
        syntax: Syntax<'_>,
    ) -> Result<(), LoadError> {
        let (path, text) = self
            .open_include(folder, path)
            .map_err(|problem| LoadError::Line {
                place: place.clone(),
                problem,
            })?;
        self.text(folder, &path, &text, syntax)
    }

    fn open_include(&mut self, folder: &Folder, path: &str) -> Result<(String, Vec<u8>), Problem> {
        let path = inside(path)?;
        if self.open.contains(&path) {
            return Err(Problem::Cycle(path));
        }
        if self.open.len() > MAX_INCLUDE_DEPTH {
            return Err(Problem::Depth);
        }
        match self.read(folder, &path) {
            Ok(text) => Ok((path, text)),
            Err(problem) => Err(Problem::Include { path, problem }),
        }
    }

    fn include_folder(
        &mut self,
        folder: &Folder,
        path: &str,
        place: &Place,
    ) -> Result<(), LoadError> {
        let failed = |problem| LoadError::Line {
            place: place.clone(),
            problem,
        };
        let path = inside(path).map_err(failed)?;
        if !folder.has_folder(&path) {
            return Err(failed(Problem::NoFolder(path)));
        }
        let names = folder.policy_files(&path)?;
        if names.is_empty() {
            self.warnings.push(Warning {
                place: place.clone(),
                text: format!("the folder `{path}` has no policy files (names end in .policy)"),
            });
        }
        for name in names {
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            self.include(folder, &path, place, Syntax::Policy)?;
        }
        Ok(())
    }

    fn add(&mut self, rule: Rule) -> Result<(), Problem> {
        if self.rules.len() >= MAX_RULES {
            return Err(Problem::Rules);
        }
        let never = match rule.source {
            Token::AdminVm => Some("the host's own calls need no policy"),
            Token::DispVmOf(_) | Token::DispVmTag(_) => {
                Some("a disposable that exists is matched by its name, @type:DispVM or a tag")
            }
            _ => None,
        };
        if let Some(why) = never {
            self.warnings.push(Warning {
                place: rule.place.clone(),
                text: format!("the source `{}` never matches: {why}", rule.source),
            });
        }
        self.rules.push(rule);
        Ok(())
    }
}
