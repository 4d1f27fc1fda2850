//! No import cycles between files: the parsed module graph of each crate has none.
//!
//! Owns how an import is read: a `use`, or a path in code, that begins with `crate`, `super`,
//! `self` or a module of the file. An edge leads from the file to the file of the module that is
//! named. Tests inside a file are left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, UseTree};

/// Modules by their paths, each with its file and what it imports.
#[derive(Default)]
struct Crate {
    files: BTreeMap<Vec<String>, PathBuf>,
    imports: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("cfg")
            && it.parse_args::<syn::Path>().is_ok_and(|it| it.is_ident("test"))
    })
}

/// The file of a module that another one declares.
fn file_of(parent: &Path, is_root: bool, module: &ItemMod) -> PathBuf {
    let directory = parent.parent().unwrap();
    let named = module.attrs.iter().find_map(|it| match &it.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(named) = named {
        return directory.join(named);
    }
    let owns_directory = is_root || parent.ends_with("mod.rs");
    let below = if owns_directory { directory.to_owned() } else { parent.with_extension("") };
    let beside = below.join(format!("{}.rs", module.ident));
    if beside.exists() { beside } else { below.join(module.ident.to_string()).join("mod.rs") }
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut all = Self::default();
        all.add(Vec::new(), root);
        let known: Vec<Vec<String>> = all.files.keys().cloned().collect();
        for (module, imports) in &mut all.imports {
            *imports = std::mem::take(imports)
                .into_iter()
                .filter_map(|path| {
                    // The module that the path leads to: what follows is an item in it.
                    known
                        .iter()
                        .filter(|it| path.starts_with(it))
                        .max_by_key(|it| it.len())
                        .cloned()
                })
                .filter(|named| named != module)
                .collect();
        }
        all
    }

    fn add(&mut self, module: Vec<String>, path: &Path) {
        let text = std::fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parsed: File = syn::parse_file(&text).unwrap();
        let children: BTreeSet<String> = parsed
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Mod(child) if !is_test(&child.attrs) => Some(child.ident.to_string()),
                _ => None,
            })
            .collect();
        let mut reader = Reader { module: module.clone(), children, found: BTreeSet::new() };
        reader.visit_file(&parsed);
        self.imports.insert(module.clone(), reader.found);
        self.files.insert(module.clone(), path.to_owned());
        for item in &parsed.items {
            if let Item::Mod(child) = item
                && child.content.is_none()
                && !is_test(&child.attrs)
            {
                let below = [module.clone(), vec![child.ident.to_string()]].concat();
                self.add(below, &file_of(path, module.is_empty(), child));
            }
        }
    }

    /// Groups of files each of which imports, by way of others, all the rest.
    fn cycles(&self) -> Vec<Vec<&Path>> {
        let reached: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = self
            .imports
            .keys()
            .map(|from| {
                let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
                while let Some(module) = next.pop() {
                    let further = self.imports.get(module).into_iter().flatten();
                    next.extend(further.filter(|it| seen.insert(*it)));
                }
                (from, seen)
            })
            .collect();
        let mut groups: BTreeSet<Vec<&Path>> = BTreeSet::new();
        for (module, seen) in &reached {
            if seen.contains(*module) {
                let all = seen.iter().filter(|it| reached[**it].contains(*module));
                groups.insert(all.map(|it| self.files[*it].as_path()).collect());
            }
        }
        groups.into_iter().collect()
    }
}

/// What one file imports, as paths from the root of its crate.
struct Reader {
    module: Vec<String>,
    children: BTreeSet<String>,
    found: BTreeSet<Vec<String>>,
}

impl Reader {
    fn note(&mut self, path: &[String]) {
        let Some((first, mut rest)) = path.split_first() else { return };
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            name if self.children.contains(name) => {
                rest = path;
                self.module.clone()
            }
            _ => return,
        };
        while let Some((next, after)) = rest.split_first()
            && next == "super"
        {
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().cloned());
        self.found.insert(base);
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                let path_before = [before, &[path.ident.to_string()]].concat();
                self.note_tree(&path_before, &path.tree);
            }
            UseTree::Name(name) if name.ident == "self" => self.note(before),
            UseTree::Name(name) => self.note(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.note(&[before, &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => group.items.iter().for_each(|it| self.note_tree(before, it)),
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        // A test inside the file. Other modules inside a file are part of it.
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
        self.note_tree(&[], &import.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 {
            let segments: Vec<String> =
                path.segments.iter().map(|it| it.ident.to_string()).collect();
            self.note(&segments);
        }
        visit::visit_path(self, path);
    }
}

fn roots() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    ["proto", "accounting", "probe", "aggregator", "client", "testkit"]
        .iter()
        .map(|name| top.join(name).join("src/lib.rs"))
        .chain([top.join("client/src/uptimectl/main.rs")])
        .collect()
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let mut faults = Vec::new();
    let mut files = 0;
    for root in roots() {
        let all = Crate::read(&root);
        files += all.files.len();
        for group in all.cycles() {
            let names: Vec<String> = group.iter().map(|it| it.display().to_string()).collect();
            faults.push(names.join("\n    "));
        }
    }
    assert!(files > 150, "only {files} files were read");
    assert!(faults.is_empty(), "{} cycles:\n  {}", faults.len(), faults.join("\n  "));
}
