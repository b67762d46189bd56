//! One template, from its recipe to its folder: the root, what it says about itself, and its
//! applications' files. The workspace's own are made by [`crate::Builder`], which remembers what is
//! up to date; anyone's own by `bulkhead-template-build`.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{
    SOURCE_DATE_EPOCH,
    apt::Mirror,
    builder::measure,
    error::{Error, io},
    recipe::{self, TemplateRecipe},
    root::{self, Form, RootSpec},
    stamp::Inputs,
};

fn spec<'a>(name: &'a str, recipe: &'a TemplateRecipe) -> RootSpec<'a> {
    RootSpec {
        name,
        suite: &recipe.suite,
        packages: recipe.packages.iter().map(String::as_str).collect(),
        exclude: &recipe.exclude,
        pick: &recipe.pick,
        components: &recipe.components,
        form: Form::Erofs,
        applications: true,
        users: &recipe.user,
        services: &recipe.service,
        files: &recipe.file,
    }
}

/// All that decides what a template is, but for the state of the archive.
pub(crate) fn inputs(name: &str, recipe: &TemplateRecipe) -> Inputs {
    let mut inputs = spec(name, recipe).inputs();
    inputs.text("description", &recipe.description);
    if recipe.disposable {
        inputs.text("disposable", "true");
    }
    inputs
}

/// Makes a template in `folder`.
pub(crate) fn make(
    name: &str,
    recipe: &TemplateRecipe,
    mirror: &Mirror,
    folder: &Path,
) -> Result<(), Error> {
    let file = folder.join("root.erofs");
    root::build(&spec(name, recipe), mirror, &file)?;
    let description = folder.join("template.toml");
    let record = TemplateRecord::new(name, recipe, &file)?;
    let text = toml::to_string(&record).map_err(|error| Error::Recipe {
        file: description.clone(),
        message: error.to_string(),
    })?;
    fs::write(&description, text).map_err(io("writing", &description))
}

/// Makes the template that the recipe `file` describes in `folder`, which must be there and empty.
/// `mirror` is another mirror than this machine's own.
pub fn build(file: &Path, folder: &Path, mirror: Option<String>) -> Result<(), Error> {
    // What is wrong with the recipe is said before anything is fetched.
    let recipe = recipe::template_file(file)?;
    let wrong = |message: &str| Error::Recipe {
        file: folder.to_path_buf(),
        message: message.to_owned(),
    };
    let mut entries = fs::read_dir(folder).map_err(io("reading", folder))?;
    if entries.next().is_some() {
        return Err(wrong("the folder for the template must be empty"));
    }
    let name = file.file_stem().and_then(|stem| stem.to_str());
    let mirror = match mirror {
        Some(uri) => Mirror(uri),
        None => Mirror::of_this_machine()?,
    };
    make(name.unwrap_or("template"), &recipe, &mirror, folder)
}

/// What a finished template says about itself.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TemplateRecord<'a> {
    name: &'a str,
    description: &'a str,
    suite: &'a str,
    packages: &'a [String],
    source_date_epoch: u64,
    size_bytes: u64,
    sha256: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disposable: bool,
}

impl<'a> TemplateRecord<'a> {
    fn new(name: &'a str, recipe: &'a TemplateRecipe, file: &Path) -> Result<Self, Error> {
        let (size_bytes, sha256) = measure(file).map_err(io("reading", file))?;
        Ok(Self {
            name,
            description: &recipe.description,
            suite: &recipe.suite,
            packages: &recipe.packages,
            source_date_epoch: SOURCE_DATE_EPOCH,
            size_bytes,
            sha256,
            disposable: recipe.disposable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_recipe_is_refused_before_anything_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        let good = "description = \"x\"\nsuite = \"trixie\"\npackages = [\"foot\"]\n";
        for (text, expected) in [
            (
                good.replace("foot", "a b"),
                "`a b` is not the name of a Debian package",
            ),
            (
                good.replace("trixie", "../x"),
                "`../x` is not the name of a Debian release",
            ),
            (format!("{good}colour = 1\n"), "line 4: "),
            (good.replace("[\"foot\"]", "[]"), "packages is empty"),
            ("x".repeat(2_000_000), "too long"),
        ] {
            fs::write(&file, text).unwrap();
            let out = tempfile::tempdir().unwrap();
            let error = build(&file, out.path(), Some("http://x".into())).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        fs::write(&file, good).unwrap();
        let error = build(&file, folder.path(), Some("http://x".into())).unwrap_err();
        assert!(error.to_string().contains("must be empty"), "{error}");
        let missing = build(Path::new("/nowhere.toml"), folder.path(), None);
        assert!(missing.is_err());
    }
}
