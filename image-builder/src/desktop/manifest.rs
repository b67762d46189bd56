//! The list of packages in SPDX 2.3's JSON form, from dpkg's own records of the root.

use bulkhead_host_boot::parameters::{VerityParameters, to_hex};
use serde_json::{Value, json};

use crate::recipe::Firmware;

/// The moment of [`crate::SOURCE_DATE_EPOCH`], as SPDX writes it.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// A package of the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// The installed packages that dpkg's status file names, in order.
#[must_use]
pub fn packages(status: &str) -> Vec<Package> {
    let mut found: Vec<Package> = status
        .split("\n\n")
        .filter_map(|stanza| {
            let value = |key: &str| {
                stanza
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            };
            value("Status").filter(|status| status.ends_with(" installed"))?;
            Some(Package {
                name: value("Package")?.to_owned(),
                version: value("Version")?.to_owned(),
                architecture: value("Architecture")?.to_owned(),
            })
        })
        .collect();
    found.sort();
    found
}

/// The document.
#[must_use]
pub fn spdx(status: &str, verity: &VerityParameters, firmware: Firmware) -> String {
    let entry = |id: &str, name: &str, version: &str, purl: Option<String>| {
        let mut entry = json!({
            "SPDXID": format!("SPDXRef-{id}"),
            "name": name,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
        });
        if let Some(purl) = purl {
            entry["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }]);
        }
        entry
    };
    let mut entries = vec![entry(
        "bulkhead",
        "bulkhead",
        env!("CARGO_PKG_VERSION"),
        None,
    )];
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-bulkhead",
    })];
    for package in packages(status) {
        let id = identifier(&format!("{}-{}", package.name, package.architecture));
        let purl = format!(
            "pkg:deb/debian/{}@{}?arch={}",
            percent(&package.name),
            percent(&package.version),
            package.architecture
        );
        entries.push(entry(&id, &package.name, &package.version, Some(purl)));
        relations.push(json!({
            "spdxElementId": "SPDXRef-bulkhead",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": format!("SPDXRef-{id}"),
        }));
    }
    let document: Value = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("bulkhead desktop image ({} firmware)", firmware.name()),
        // Unique to these bytes; it names the document and is no address.
        "documentNamespace": format!("https://bulkhead.invalid/spdx/{}", to_hex(&verity.root_hash)),
        "creationInfo": {
            "created": CREATED,
            "creators": [format!("Tool: bulkhead-image-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": entries,
        "relationships": relations,
    });
    format!("{document:#}\n")
}

/// What a package URL may not have as it is, of what Debian's names and versions do have.
fn percent(text: &str) -> String {
    text.replace('+', "%2B")
        .replace(':', "%3A")
        .replace('~', "%7E")
}

/// SPDX identifiers have letters, digits, dots and dashes only.
fn identifier(text: &str) -> String {
    text.replace('+', "-plus").replace(
        |letter: char| !letter.is_ascii_alphanumeric() && letter != '.' && letter != '-',
        "-",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\n\
        Version: 1:1.3\nDescription: x\n Version: 9\n\nPackage: gone\nStatus: deinstall ok \
        config-files\nArchitecture: all\nVersion: 1\n\nPackage: libstdc++6\nStatus: install ok \
        installed\nArchitecture: amd64\nVersion: 14\n";

    #[test]
    fn installed_packages_are_listed_in_order() {
        let names: Vec<String> = packages(STATUS)
            .into_iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect();
        assert_eq!(names, ["libstdc++6 14", "zlib1g 1:1.3"]);
    }

    #[test]
    fn the_document_has_what_spdx_demands() {
        let verity = VerityParameters {
            root_hash: [1; 32],
            salt: vec![1],
            blocks: 1,
        };
        let text = spdx(STATUS, &verity, Firmware::Virtual);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        assert_eq!(document["packages"].as_array().unwrap().len(), 3);
        assert_eq!(
            document["packages"][1]["SPDXID"],
            "SPDXRef-libstdc-plus-plus6-amd64"
        );
        assert_eq!(
            document["packages"][2]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/zlib1g@1%3A1.3?arch=amd64"
        );
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
        assert_eq!(text, spdx(STATUS, &verity, Firmware::Virtual));
    }
}
