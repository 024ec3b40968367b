//! Every committed seed holds, and the seeds of a target show both what is taken and what is refused.

use super::TARGETS;
use std::fs;
use std::path::Path;

#[test]
fn every_seed_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in TARGETS {
        let mut seeds: Vec<_> = fs::read_dir(root.join("seeds").join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        seeds.sort();
        let taken = seeds.iter().filter(|seed| target(&fs::read(seed).unwrap())).count();
        assert!(taken > 0 && taken < seeds.len(), "{name}: {taken} of {} seeds are taken", seeds.len());
        let program = fs::read_to_string(root.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", ")), "{name}");
    }
}

#[test]
fn every_seed_and_program_belongs_to_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for directory in ["seeds", "fuzz_targets"] {
        let mut found: Vec<String> = fs::read_dir(root.join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|name: &String| cfg!(feature = "vendored") || name != "pointers")
            .collect();
        found.sort();
        assert_eq!(found, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{directory}");
    }
}
