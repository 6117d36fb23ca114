use super::hierarchies::Hierarchy;
use super::*;

#[test]
fn parents_are_paths_that_stay_inside() {
    for (parent, names) in [
        ("/", &[][..]),
        ("builds", &["builds"]),
        ("//a/./b/", &["a", "b"]),
        ("/system.slice/x.service", &["system.slice", "x.service"]),
    ] {
        assert_eq!(path_of(parent).unwrap(), names);
    }
    for parent in [
        "a/../b",
        "..",
        "a\0",
        "a\nb",
        "system.slice:builds:",
        "user.slice:",
    ] {
        let refusal = path_of(parent).unwrap_err().to_string();
        assert!(
            refusal.starts_with(&format!("invalid cgroup parent {parent:?}: ")),
            "{refusal}"
        );
    }
}

#[test]
fn kills_are_counted_in_both_spellings() {
    assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
    assert_eq!(
        kills("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n"),
        1
    );
    assert_eq!(kills(""), 0);
}

#[tokio::test]
async fn nothing_is_made_for_steps_that_need_none() {
    let plain = Cgroups::new("d", None, Weak::new());
    assert!(plain.make("", &Limits::default()).await.unwrap().is_none());
    let limits = Limits {
        memory: -3,
        ..Limits::default()
    };
    let refusal = plain.make("", &limits).await.unwrap_err();
    assert!(matches!(refusal, CgroupError::Limit(_)), "{refusal:?}");
}

#[test]
fn what_earlier_lives_left_is_swept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["me-1-1", "me-1-2/below", "me-2-1", "other-1-1", "me-1-3"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    // As one that a process is in, it cannot be removed.
    std::fs::write(folder.path().join("me-1-3/file"), "").unwrap();
    sweep(folder.path(), "me-", "me-2-");
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["me-1-3", "me-2-1", "other-1-1"]);
    sweep(&folder.path().join("absent"), "me-", "me-2-");
}

#[test]
fn old_hierarchies_are_entered_where_it_matters() {
    let root = tempfile::tempdir().unwrap();
    let hierarchy = |name: &str, controllers: &[&'static str]| {
        let folder = root.path().join(name);
        // A kernel would make the files with the folders.
        for below in ["", "buildkit"] {
            let folder = folder.join(below);
            std::fs::create_dir_all(&folder).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::write(folder.join(file), if below.is_empty() { "0-3\n" } else { "\n" }).unwrap();
            }
        }
        Hierarchy {
            folder,
            controllers: controllers.to_vec(),
        }
    };
    let all = [hierarchy("cpuset", &["cpuset"]), hierarchy("pids", &["pids"])];
    let place = ["buildkit".to_owned(), "x".to_owned()];
    let limits = Limits {
        cpuset_cpus: "1".into(),
        ..Limits::default()
    };
    let mut draft = Draft::default();
    // The files of the step's own folder are not there without a kernel.
    let made = split::make(&all, &place, false, &limits, &mut draft);
    assert!(matches!(made, Err(CgroupError::Read { .. })), "{made:?}");
    let text = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!(text("cpuset/buildkit/cpuset.cpus"), "0-3");
    assert!(!root.path().join("pids/buildkit/x").exists());
    drop(draft);
    assert!(!root.path().join("cpuset/buildkit/x").exists());

    let limits = Limits {
        memory: 1,
        ..Limits::default()
    };
    let refusal = split::make(&all, &place, true, &limits, &mut Draft::default()).unwrap_err();
    assert!(
        matches!(refusal, CgroupError::NoController("memory")),
        "{refusal:?}"
    );
}
