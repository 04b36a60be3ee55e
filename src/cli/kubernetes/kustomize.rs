//! The documents as files, with a `kustomization.yaml`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use bactrian::cluster_kubernetes::{Document, MANIFEST_MARK};

use crate::cli::output;

/// Writes the files into a folder, which is made where it is missing. Files of the same names that were
/// made by hand are left as they are: then nothing is written at all.
pub(super) fn write(folder: &Path, documents: &[Document]) -> ExitCode {
    let mut kustomization = format!(
        "{MANIFEST_MARK}\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
    );
    for document in documents {
        kustomization += &format!("- {}\n", document.file_name);
    }
    let files = documents.iter().map(|document| (document.file_name, &document.text));
    let files = files.chain([("kustomization.yaml", &kustomization)]).collect::<Vec<_>>();
    let cannot = |path: &Path, error: &io::Error| {
        output::failure(&format!("cannot write `{}`: {error}", path.display()))
    };
    for (name, _) in &files {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(text) if !text.starts_with(MANIFEST_MARK.as_bytes()) => {
                let path = path.display();
                return output::failure(&format!(
                    "`{path}` was not made by this command, so nothing is written: move it away, or choose \
                     another folder"
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return cannot(&path, &error),
        }
    }
    if let Err(error) = fs::create_dir_all(folder) {
        return cannot(folder, &error);
    }
    for (name, text) in files {
        let path = folder.join(name);
        if let Err(error) = fs::write(&path, text) {
            return cannot(&path, &error);
        }
    }
    output::data(&format!("wrote {} and what it names\n", folder.join("kustomization.yaml").display()))
}
