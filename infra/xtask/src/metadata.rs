//! What `cargo metadata` says about packages and who uses whom.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;

use serde_json::Value;

use crate::tree::Tree;

/// Why a package is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The SPDX expression, when the manifest has one.
    pub(crate) licence: Option<String>,
    /// The folder below the root for a package of this workspace, `None` for one of somebody else.
    pub(crate) folder: Option<String>,
    /// Direct dependencies as positions in [`Graph::packages`].
    pub(crate) uses: Vec<(usize, Kind)>,
}

/// All packages that are built for this kind of machine.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) packages: Vec<Package>,
}

impl Graph {
    /// Asks cargo. Packages for other operating systems are left out: they are never built, and CI need not fetch them.
    pub(crate) fn load(tree: &Tree) -> Result<Self, Box<dyn Error>> {
        let version = tree.output("rustc", &["-vV"])?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .ok_or("rustc names no host")?;
        let arguments = [
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            host,
        ];
        Self::parse(&tree.output("cargo", &arguments)?)
    }

    /// Reads the JSON text of `cargo metadata`.
    pub(crate) fn parse(json: &str) -> Result<Self, Box<dyn Error>> {
        let json: Value = serde_json::from_str(json)?;
        let root = text(&json, "workspace_root")?;
        let nodes = list(&json["resolve"], "nodes")?;
        let mut positions = HashMap::new();
        for (position, node) in nodes.iter().enumerate() {
            positions.insert(text(node, "id")?, position);
        }
        let members: BTreeSet<&str> = list(&json, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .collect();

        let mut described = HashMap::new();
        for package in list(&json, "packages")? {
            described.insert(text(package, "id")?, package);
        }
        let mut packages = Vec::with_capacity(nodes.len());
        for node in nodes {
            let id = text(node, "id")?;
            let package = *described
                .get(id)
                .ok_or_else(|| format!("cargo metadata does not describe {id}"))?;
            let folder = members
                .contains(id)
                .then(|| folder(text(package, "manifest_path")?, root))
                .transpose()?;
            let mut uses = Vec::new();
            for dependency in list(node, "deps")? {
                let to = text(dependency, "pkg")?;
                let to = *positions
                    .get(to)
                    .ok_or_else(|| format!("cargo metadata does not resolve {to}"))?;
                for kind in list(dependency, "dep_kinds")? {
                    let kind = match kind["kind"].as_str() {
                        Some("dev") => Kind::Dev,
                        Some("build") => Kind::Build,
                        _ => Kind::Normal,
                    };
                    uses.push((to, kind));
                }
            }
            packages.push(Package {
                name: text(package, "name")?.to_owned(),
                version: text(package, "version")?.to_owned(),
                licence: package["license"].as_str().map(str::to_owned),
                folder,
                uses,
            });
        }
        Ok(Self { packages })
    }

    /// The workspace's own package of that name.
    pub(crate) fn member(&self, name: &str) -> Option<usize> {
        self.packages
            .iter()
            .position(|package| package.folder.is_some() && package.name == name)
    }

    /// Everything a package needs to be built and run, itself left out; what only its tests need does not count.
    pub(crate) fn closure(&self, of: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut open = vec![of];
        while let Some(position) = open.pop() {
            for &(to, kind) in &self.packages[position].uses {
                if kind != Kind::Dev && seen.insert(to) {
                    open.push(to);
                }
            }
        }
        seen
    }
}

/// The folder of a manifest, relative to the root of the workspace.
fn folder(manifest: &str, root: &str) -> Result<String, Box<dyn Error>> {
    let folder = manifest
        .strip_prefix(root)
        .and_then(|below| below.strip_suffix("/Cargo.toml"));
    let folder = folder.ok_or_else(|| format!("{manifest} is not below {root}"))?;
    Ok(folder.trim_start_matches('/').to_owned())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, Box<dyn Error>> {
    value[key]
        .as_str()
        .ok_or_else(|| format!("cargo metadata has no text `{key}` where one was expected").into())
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, Box<dyn Error>> {
    value[key]
        .as_array()
        .ok_or_else(|| format!("cargo metadata has no list `{key}` where one was expected").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{
        "workspace_root": "/w",
        "workspace_members": ["path+own"],
        "packages": [
            {"id": "path+own", "name": "own", "version": "0.1.0", "license": "Apache-2.0", "manifest_path": "/w/infra/own/Cargo.toml"},
            {"id": "reg+theirs", "name": "theirs", "version": "2.0.0", "license": null, "manifest_path": "/c/theirs/Cargo.toml"}
        ],
        "resolve": {"nodes": [
            {"id": "reg+theirs", "deps": []},
            {"id": "path+own", "deps": [{"pkg": "reg+theirs", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]}
        ]}
    }"#;

    #[test]
    fn members_and_uses_are_read() {
        let graph = Graph::parse(SAMPLE).unwrap();
        let own = graph.member("own").unwrap();
        assert_eq!(graph.packages[own].folder.as_deref(), Some("infra/own"));
        assert_eq!(
            graph.packages[own].uses,
            [(0, Kind::Normal), (0, Kind::Dev)]
        );
        assert_eq!(graph.packages[0].folder, None);
        assert_eq!(graph.packages[0].licence, None);
        assert_eq!(graph.closure(own), BTreeSet::from([0]));
        assert_eq!(graph.member("theirs"), None);
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        for sample in [
            "",
            "{}",
            r#"{"workspace_root": "/w", "resolve": {"nodes": [{}]}}"#,
        ] {
            assert!(Graph::parse(sample).is_err(), "{sample}");
        }
    }
}
