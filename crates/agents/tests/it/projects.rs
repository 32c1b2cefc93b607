use crate::world::{World, commit, git};
use agents::locate;
use std::path::Path;

#[test]
fn the_root_commit_names_the_project() {
    let world = World::new();
    git(&world.ws, &["init", "-q", "-b", "main"]);
    let first = commit(&world.ws);
    std::fs::create_dir_all(world.ws.join("src")).unwrap();
    for directory in [world.ws.clone(), world.ws.join("src"), world.ws.join("not/there")] {
        let place = locate(&directory, &world.surroundings);
        assert_eq!((place.project.id.as_str(), place.project.vcs), (first.as_str(), Some("git")));
        assert_eq!((&place.worktree, &place.project.worktree), (&world.ws, &world.ws));
    }
    git(&world.ws, &["checkout", "-q", "--orphan", "other"]);
    let second = git(&world.ws, &["commit-tree", "-m", "another root", &git(&world.ws, &["write-tree"])]);
    git(&world.ws, &["update-ref", "refs/heads/other", &second]);
    let expected = first.min(second);
    assert_eq!(locate(&world.ws, &world.surroundings).project.id, expected);
}

/// R89 and R81.
#[test]
fn without_repository_or_commit_the_project_is_global() {
    let world = World::new();
    let place = locate(&world.ws, &world.surroundings);
    assert_eq!((place.project.id.as_str(), place.project.vcs), ("global", None));
    assert_eq!((place.worktree.as_path(), place.project.worktree.as_path()), (Path::new("/"), Path::new("/")));

    git(&world.ws, &["init", "-q", "-b", "main"]);
    let instance = world.load();
    assert_eq!((instance.project.id.as_str(), instance.project.vcs), ("global", Some("git")));
    assert_eq!(instance.worktree, world.ws);
    assert!(instance.is_fresh());
    commit(&world.ws);
    assert!(!instance.is_fresh(), "the first commit names the project");
    let instance = world.load();
    commit(&world.ws);
    assert!(instance.is_fresh(), "later ones change nothing");
}

#[test]
fn a_linked_work_tree_belongs_to_the_main_ones_project() {
    let world = World::new();
    git(&world.ws, &["init", "-q", "-b", "main"]);
    let id = commit(&world.ws);
    let linked = world.ws.parent().unwrap().join("linked");
    git(&world.ws, &["worktree", "add", "-q", linked.to_str().unwrap(), "-b", "x"]);
    let place = locate(&linked, &world.surroundings);
    assert_eq!((place.project.id, place.project.worktree, place.worktree), (id, world.ws.clone(), linked));
}

#[test]
fn without_git_the_project_is_global() {
    let mut world = World::with(serde_json::json!({}));
    world.set("PATH", "/nonexistent");
    assert_eq!(world.load().project.id, "global");
}
