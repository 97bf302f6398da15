//! What the operator said by flags and variables when a server was restored is what its `restore_command` goes by, also
//! when the server is started by somebody whose environment says nothing.

use crate::pitr::{Site, promote};
use crate::support::command;

/// The value of `restore_command` in the settings of a restored server.
fn restore_command(data: &std::path::Path) -> String {
    let settings = std::fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
    let line = settings.lines().rfind(|line| line.starts_with("restore_command")).unwrap();
    line.to_owned()
}

#[test]
fn pg16_spool_and_timeout_are_those_of_the_restore() {
    let site = Site::new();
    let mut primary = site.primary(16);
    primary.sql("create table t as select 1 as i");
    site.backup(&primary, &[]);
    primary.sql("insert into t values (2)");
    primary.switch_and_archive();
    primary.destroy();
    let spool = site.place("spool of the restored server");
    let restore = |arguments: &[&str], variables: &[(&str, &str)], name: &str| {
        let place = site.place(name);
        let arguments = [&["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "latest"], arguments].concat();
        command::run(site.command(&arguments).envs(variables.iter().copied())).exits(0);
        restore_command(&place)
    };
    // By variables, and where there is a flag too, by the flag.
    let variables = [("WALVIS_SPOOL", spool.to_str().unwrap()), ("WALVIS_TIMEOUT_S", "111"), ("WALVIS_ZONE", "UTC")];
    let told = restore(&["--target-action", "promote"], &variables, "restored");
    assert!(told.contains(&format!("WALVIS_SPOOL=''{}'' ", spool.display())), "{told}");
    assert!(told.contains(" --timeout 111 ") && !told.contains("WALVIS_ZONE"), "{told}");
    let told = restore(&["--timeout", "222"], &variables, "flag");
    assert!(told.contains(" --timeout 222 ") && !told.contains("111"), "{told}");
    let told = restore(&[], &[], "neither");
    assert!(!told.contains("WALVIS_SPOOL") && !told.contains("--timeout"), "{told}");
    // And the server, whose environment has none of them, recovers with them.
    assert!(!spool.exists());
    let mut restored = site.restored("restored", 16);
    promote(&mut restored);
    assert_eq!(restored.sql("select count(*) from t"), "2");
    assert!(spool.exists(), "nothing was spooled there: {}", restored.log());
}
