//! Files outside the data directory that the server read: its settings, who may connect, certificates. `--config-to
//! DIR` puts them there, and has the settings name the new places.
//!
//! What lay beside the main file of settings gets its place in DIR by the same relative path; what was elsewhere
//! (certificates) lies below `DIR/elsewhere`.

use crate::error::{Error, Kind};
use crate::format::manifest::{Attachment, BackupFacts};
use crate::fsio::{self, Dir, Found, Identity, ItemKind, Missing, Problem, Rooted};
use crate::limits::MAX_ATTACHMENT_BYTES;
use crate::pg::settings::{quote_bytes, value_in};
use crate::raw_text::shown;
use crate::report::restore::AttachmentPlan;
use crate::restore::files::Source;
use crate::restore::target_directory::local;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where files go that were not beside the main one.
const ELSEWHERE: &str = "elsewhere";
/// What a file is called then that was there with other content.
const BEFORE: &str = ".before-restore";
/// Settings that name one file.
const NAMING: [&str; 7] =
    ["hba_file", "ident_file", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_dh_params_file"];

/// The main file of settings, if it was outside the data directory.
pub(crate) fn main_of(facts: &BackupFacts) -> Option<&Attachment> {
    facts.attachments.iter().find(|attachment| attachment.setting == "config_file")
}

/// The plan where they stay in the backup.
pub(crate) fn left_there(facts: &BackupFacts) -> Vec<AttachmentPlan> {
    let plan = |attachment: &Attachment| AttachmentPlan {
        from_path: attachment.path.clone(),
        setting: attachment.setting.clone(),
        to_path: None,
        bytes: attachment.size_bytes,
        replaces: false,
    };
    facts.attachments.iter().map(plan).collect()
}

/// What is put where.
pub(crate) struct Arrangement {
    files: Vec<(Attachment, Vec<u8>, PathBuf)>,
    /// The main file of settings.
    pub(crate) main: Option<PathBuf>,
    /// What is said in the plan.
    pub(crate) plan: Vec<AttachmentPlan>,
}

impl Arrangement {
    /// Reads the files from the backup, and checks that they can be put there. Nothing is written.
    ///
    /// # Errors
    /// [`Kind::Refused`] when other files are there, unless they may be replaced; [`Kind::Config`] when nothing can be
    /// written there, or the backup has no such files; others of reading the backup.
    pub(crate) fn prepare(
        source: &Source<'_>,
        facts: &BackupFacts,
        directory: &Path,
        pgdata: &Path,
        replace: bool,
        owner: Identity,
    ) -> Result<Self, Error> {
        if facts.attachments.is_empty() {
            return Err(Error::new(
                Kind::Config,
                format!("backup {} has no files from outside the data directory", source.summary.id),
            )
            .hint("its settings are in the data directory, or were not backed up: leave out --config-to"));
        }
        if !directory.is_absolute() || directory.starts_with(pgdata) || pgdata.starts_with(directory) {
            return Err(Error::new(Kind::Usage, format!("--config-to {} is no place for settings", shown(directory)))
                .hint("name a directory of its own by its absolute path, such as /etc/postgresql/15/main"));
        }
        writable(directory)?;
        let reader = source.extents(source.hash_key(facts)?, 1);
        let mut files = Vec::new();
        for (attachment, to) in places(facts, directory) {
            let content = reader.content(attachment.size_bytes, &attachment.extents);
            let content = content.map_err(|e| e.while_doing(format!("restore {}", shown(&to))))?;
            files.push((attachment.clone(), content, to));
        }
        let main = files.iter().position(|(attachment, ..)| attachment.setting == "config_file");
        let lines = main.and_then(|main| files.get(main)).map(|(_, content, _)| lines_for(content, &files, pgdata));
        if let (Some((_, content, _)), Some(lines)) = (main.and_then(|main| files.get_mut(main)), lines) {
            content.extend_from_slice(&lines);
        }
        let mut arrangement =
            Self { main: main.and_then(|main| files.get(main)).map(|(.., to)| to.clone()), files, plan: Vec::new() };
        arrangement.plan = arrangement.compare(replace, owner)?;
        Ok(arrangement)
    }

    /// What is there already.
    fn compare(&self, replace: bool, owner: Identity) -> Result<Vec<AttachmentPlan>, Error> {
        let mut plan = Vec::new();
        for (attachment, content, to) in &self.files {
            let (directory, name) = split(to);
            let refused = |what: &str| {
                Error::new(Kind::Refused, format!("{} {what}", shown(to))).hint("name an empty directory with --config-to")
            };
            let replaces = match Rooted::look(directory).map_err(local)? {
                Found::Absent(whose) => {
                    check_owner(directory, whose.unwrap_or(owner), owner)?;
                    false
                }
                Found::There(dir) => {
                    check_owner(directory, dir.identity(), owner)?;
                    match dir.stat_beneath(name).map_err(local)?.map(|stat| stat.kind) {
                        None => false,
                        Some(ItemKind::File) => differs(&dir, name, content)?,
                        Some(_) => return Err(refused("is there and is no file")),
                    }
                }
            };
            if replaces && !replace {
                return Err(Error::new(
                    Kind::Refused,
                    format!("{} is there with other content: refused, nothing was touched", shown(to)),
                )
                .hint("name an empty directory with --config-to, or say --delta: what is there is renamed then"));
            }
            plan.push(AttachmentPlan {
                from_path: attachment.path.clone(),
                setting: attachment.setting.clone(),
                to_path: Some(to.as_path().into()),
                bytes: attachment.size_bytes,
                replaces,
            });
        }
        Ok(plan)
    }

    /// Puts them there, durably. What is there with other content is renamed.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub(crate) fn put(&self, owner: Identity) -> Result<(), Error> {
        for (attachment, content, to) in &self.files {
            let (directory, name) = split(to);
            // Each for itself: one directory may be root's, and the one in it the server's.
            let dir = Rooted::open_or_make(directory, owner, Missing::All).map_err(local)?.dir;
            check_owner(directory, dir.identity(), owner)?;
            let is_file = dir.stat_beneath(name).map_err(local)?.is_some_and(|stat| stat.kind == ItemKind::File);
            if is_file && differs(&dir, name, content)? {
                let mut before = name.as_os_str().to_owned();
                before.push(BEFORE);
                dir.rename(name.as_os_str(), &before).map_err(local)?;
            }
            dir.put(name, content, attachment.mode, owner, attachment.modified_unix_us).map_err(local)?;
        }
        Ok(())
    }
}

fn split(path: &Path) -> (&Path, &Path) {
    (path.parent().unwrap_or(path), path.file_name().map(Path::new).unwrap_or(path))
}

/// Root writes into its own directories, and into those of the server's user with that user's rights; into nobody
/// else's.
fn check_owner(directory: &Path, whose: Identity, owner: Identity) -> Result<(), Error> {
    if whose.is_own() || whose.owner().uid == owner.owner().uid {
        return Ok(());
    }
    let (whose, owner) = (whose.name(), owner.name());
    Err(Error::new(
        Kind::Refused,
        format!("{} is in the hands of user {whose}, and the server's settings belong to user {owner}", shown(directory)),
    )
    .hint(format!("name another directory with --config-to, or give that one to {owner}")))
}

fn differs(dir: &Dir, name: &Path, content: &[u8]) -> Result<bool, Error> {
    // The settings grow by the lines that name the new places.
    match dir.read_bounded(name, 2 * MAX_ATTACHMENT_BYTES) {
        Ok(there) => Ok(there.is_none_or(|there| there != content)),
        Err(e) if e.problem == Problem::TooLarge => Ok(true),
        Err(e) => Err(local(e)),
    }
}

/// Whether files can be made there, as far as that is known without doing it.
fn writable(directory: &Path) -> Result<(), Error> {
    let existing = directory.ancestors().find(|above| fsio::exists(above).unwrap_or(true)).unwrap_or(directory);
    if fsio::may_write(existing) {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("{} cannot be written to, so --config-to cannot put files there", shown(existing)))
        .hint("run the restore as root, or give that directory to the user who runs it"))
}

/// Where each goes.
fn places<'a>(facts: &'a BackupFacts, directory: &Path) -> Vec<(&'a Attachment, PathBuf)> {
    let base =
        main_of(facts).or(facts.attachments.first()).and_then(|main| main.path.as_path().parent()).unwrap_or(Path::new("/"));
    let place = |attachment: &'a Attachment| {
        let path = attachment.path.as_path();
        let to = match path.strip_prefix(base) {
            Ok(below) if base != Path::new("/") => directory.join(below),
            _ => directory.join(ELSEWHERE).join(path.strip_prefix("/").unwrap_or(path)),
        };
        (attachment, to)
    };
    facts.attachments.iter().map(place).collect()
}

/// Lines at the end of the main file for what is elsewhere now.
fn lines_for(main: &[u8], files: &[(Attachment, Vec<u8>, PathBuf)], pgdata: &Path) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut line = |name: &str, path: &Path| {
        lines.extend_from_slice(format!("{name} = ").as_bytes());
        lines.extend_from_slice(&quote_bytes(path.as_os_str().as_bytes()));
        lines.push(b'\n');
    };
    if value_in(main, "data_directory").is_none_or(|was| Path::new(&was) != pgdata) {
        line("data_directory", pgdata);
    }
    for setting in NAMING {
        // The one that the setting names comes before those that it includes.
        if let Some((attachment, _, to)) = files.iter().find(|(attachment, ..)| attachment.setting == setting)
            && attachment.path.as_path() != to
        {
            line(setting, to);
        }
    }
    if lines.is_empty() { lines } else { [b"\n# walvis: where pitr-restore put it\n".as_slice(), &lines].concat() }
}

/// The arguments that have a server take its settings from there.
pub(crate) fn arguments(main: &Path, pgdata: &Path) -> [std::ffi::OsString; 4] {
    let setting = |name: &str, path: &Path| {
        let mut argument = OsStr::new(name).to_owned();
        argument.push("=");
        argument.push(path);
        argument
    };
    let dash_c = || OsStr::new("-c").to_owned();
    [dash_c(), setting("config_file", main), dash_c(), setting("data_directory", pgdata)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(path: &str, setting: &str) -> Attachment {
        Attachment {
            path: path.into(),
            setting: setting.to_owned(),
            mode: 0o640,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
            modified_unix_us: 0,
            size_bytes: 0,
            crc32c: 0,
            extents: Vec::new(),
        }
    }

    fn facts(attachments: Vec<Attachment>) -> BackupFacts {
        BackupFacts {
            hash_key: String::new(),
            databases: Vec::new(),
            tablespaces: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            damage: Vec::new(),
            warnings: Vec::new(),
            attachments,
            verified_up_to: 0,
        }
    }

    #[test]
    fn files_keep_their_places_beside_the_main_one_and_settings_name_the_new_ones() {
        let facts = facts(vec![
            attachment("/etc/postgresql/15/main/postgresql.conf", "config_file"),
            attachment("/etc/postgresql/15/main/conf.d/a.conf", "config_file"),
            attachment("/etc/postgresql/15/main/pg_hba.conf", "hba_file"),
            attachment("/etc/ssl/cert.pem", "ssl_cert_file"),
        ]);
        let to = |directory: &str| -> Vec<(Attachment, Vec<u8>, PathBuf)> {
            places(&facts, Path::new(directory)).into_iter().map(|(a, to)| (a.clone(), Vec::new(), to)).collect()
        };
        let shown: Vec<_> = to("/new").iter().map(|(.., to)| to.display().to_string()).collect();
        let expected = ["/new/postgresql.conf", "/new/conf.d/a.conf", "/new/pg_hba.conf", "/new/elsewhere/etc/ssl/cert.pem"];
        assert_eq!(shown, expected);
        let lines = |directory: &str, pgdata: &str| {
            let main = b"data_directory = '/var/lib/postgresql/15/main'\n";
            String::from_utf8(lines_for(main, &to(directory), Path::new(pgdata))).unwrap()
        };
        let all = "\n# walvis: where pitr-restore put it\ndata_directory = '/it''s'\nhba_file = '/new/pg_hba.conf'\n\
                   ssl_cert_file = '/new/elsewhere/etc/ssl/cert.pem'\n";
        assert_eq!(lines("/new", "/it's"), all);
        let here = lines("/etc/postgresql/15/main", "/var/lib/postgresql/15/main");
        assert!(here.contains("ssl_cert_file") && !here.contains("hba_file") && !here.contains("data_directory"), "{here}");
    }
}
