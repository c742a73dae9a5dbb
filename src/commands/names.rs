//! The names of inputs in captures. They tell apart the traces of two pods whose files have the same name.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
};

use crate::{input::Input, redact::Redaction};

/// The names of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputName {
    /// For people: the file's own name. If another input has this name, its path below the directory that was named.
    pub shown: String,
    /// What made-up addresses and sequence numbers come from: the file's own name without the suffixes that only say
    /// how it is packed and encoded. If another input has this name, the directories come before it.
    pub stem: String,
}

impl InputName {
    /// The names in a capture of its own. They do not depend on what else is converted, because the place of the
    /// capture in the tree tells it apart.
    pub(super) fn alone(input: &Input) -> Self {
        Self { shown: input.name(), stem: input.stem() }
    }

    /// The names that an output without secrets has. What is made up from the name must not confirm it to those who guess
    /// it, so that it comes from what stands for the name.
    pub(super) fn redacted(self, redaction: Option<&Redaction>) -> Self {
        let shown = |name: String| redaction.map_or(name.clone(), |redaction| redaction.file(&name).into_owned());
        Self { shown: shown(self.shown), stem: shown(self.stem) }
    }
}

/// The names of inputs that go into one capture.
pub(super) fn names(inputs: &[Input]) -> Vec<InputName> {
    let with_stem = |path: &Path, input: &Input| text(&path.with_file_name(input.stem()));
    let shown = tell_apart(inputs, &[&Input::name, &|input| text(&input.relative), &|input| text(input.path())]);
    let stems = tell_apart(
        inputs,
        &[&Input::stem, &|input| with_stem(&input.relative, input), &|input| with_stem(input.path(), input)],
    );
    shown.into_iter().zip(stems).map(|(shown, stem)| InputName { shown, stem }).collect()
}

/// The first name of each input that no input of another directory has. If there is none, the last kind of name.
fn tell_apart(inputs: &[Input], kinds: &[&dyn Fn(&Input) -> String]) -> Vec<String> {
    let mut names: Vec<Option<String>> = vec![None; inputs.len()];
    for (depth, kind) in kinds.iter().enumerate() {
        let mut directories: HashMap<String, Option<PathBuf>> = HashMap::new();
        let open: Vec<usize> = (0..inputs.len()).filter(|index| names[*index].is_none()).collect();
        for index in &open {
            let directory = inputs[*index].directory();
            match directories.entry(kind(&inputs[*index])) {
                Entry::Vacant(entry) => drop(entry.insert(Some(directory))),
                Entry::Occupied(mut entry) if entry.get().as_ref() != Some(&directory) => drop(entry.insert(None)),
                Entry::Occupied(_) => {}
            }
        }
        for index in open {
            let name = kind(&inputs[index]);
            let unique = directories.get(&name).is_some_and(Option::is_some);
            if unique || depth + 1 == kinds.len() {
                names[index] = Some(name);
            }
        }
    }
    names.into_iter().map(Option::unwrap_or_default).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::InputPath;

    fn input(path: &str, relative: &str) -> Input {
        Input::new(InputPath::new(Path::new(path)), relative.into(), true)
    }

    fn named(inputs: &[(&str, &str)]) -> Vec<(String, String)> {
        let inputs: Vec<_> = inputs.iter().map(|(path, relative)| input(path, relative)).collect();
        names(&inputs).into_iter().map(|name| (name.shown, name.stem)).collect()
    }

    fn pair(shown: &str, stem: &str) -> (String, String) {
        (shown.into(), stem.into())
    }

    #[test]
    fn one_name_in_two_directories_is_two_names() {
        let below_one_root = named(&[("in/a/tap_4.json", "a/tap_4.json"), ("in/b/tap_4.json", "b/tap_4.json")]);
        assert_eq!(below_one_root, [pair("a/tap_4.json", "a/tap_4"), pair("b/tap_4.json", "b/tap_4")]);
        let two_roots = named(&[("a/tap_4.json", "tap_4.json"), ("b/tap_4.json", "tap_4.json"), ("b/x.pb", "x.pb")]);
        assert_eq!(two_roots, [pair("a/tap_4.json", "a/tap_4"), pair("b/tap_4.json", "b/tap_4"), pair("x.pb", "x")]);
    }

    #[test]
    fn a_name_that_is_alone_stays_the_files_own() {
        assert_eq!(named(&[("in/a/tap_4.json", "a/tap_4.json")]), [pair("tap_4.json", "tap_4")]);
        let two_encodings = named(&[("in/tap_4.json", "tap_4.json"), ("in/tap_4.pb", "tap_4.pb")]);
        assert_eq!(two_encodings, [pair("tap_4.json", "tap_4"), pair("tap_4.pb", "tap_4")]);
        assert_eq!(named(&[("-", "-")]), [pair("-", "-")]);
    }
}
