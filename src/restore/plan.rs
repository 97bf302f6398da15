//! What a restore will do, said before anything is done.

use crate::error::Error;
use crate::format::descriptor::RepositoryCipher;
use crate::fsio;
use crate::pg::target::Target;
use crate::raw_text::{RawText, shown};
use crate::report::restore::{DirectoryState, RestorePlan, TablespacePlan};
use crate::report::setting::Setting;
use crate::repositories::UNENCRYPTED;
use crate::restore::attachments;
use crate::restore::job::Job;
use crate::restore::tablespaces;
use crate::restore::target_directory::{TargetState, local};
use crate::restore::{recovery_settings, room};
use std::path::{Path, PathBuf};

impl Job<'_> {
    /// What will be done, with what an operator has to know of it.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config) where what is there cannot be looked at.
    pub fn plan(&self) -> Result<RestorePlan, Error> {
        let mut settings = vec![Setting::new("restore_command", self.request.invocation.restore_command())];
        settings.extend(self.settings.recovery.iter().cloned());
        let mut notes = Vec::new();
        if self.source.repository.descriptor().cipher == RepositoryCipher::None {
            notes.push(format!("the repository is {UNENCRYPTED}"));
        }
        if !self.request.standby && self.request.target.target == Target::Latest {
            notes.push(
                "recovery goes on to the end of the archive, and the server then takes writes on a new timeline".to_owned(),
            );
        }
        if !self.request.archiving {
            notes.push(recovery_settings::ARCHIVE_AGAIN.to_owned());
        }
        if self.request.archiving && !self.request.standby {
            notes.push(
                "the restored server archives as the original does: give it another cluster name, unless the original is gone"
                    .to_owned(),
            );
        }
        if let Some(places) = &self.unnamed {
            notes.push(format!("{places}: {}", tablespaces::NAME_THEM));
        }
        for path in &self.for_replay.emptied {
            notes.push(format!("replay will REMOVE what is in {}: a tablespace was made there after the backup", shown(path)));
        }
        notes.extend(self.note_on_pg_wal()?);
        if !self.survey.has_settings && self.arrangement.is_none() {
            notes.push(self.note_on_settings());
        }
        if self.source.summary.pages.damaged > 0 {
            notes.push(format!("{} pages were damaged when the backup was taken", self.source.summary.pages.damaged));
        }
        notes.extend(self.survey.facts.warnings.iter().map(|warning| format!("when the backup was taken: {warning}")));
        let tablespace = |(oid, from, to): &(u32, RawText, PathBuf)| TablespacePlan {
            oid: *oid,
            from_path: from.clone(),
            to_path: to.as_path().into(),
            bytes: self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default(),
        };
        Ok(RestorePlan {
            data_directory: self.pgdata.as_path().into(),
            directory_state: match self.target_state {
                TargetState::Absent => DirectoryState::Absent,
                TargetState::Empty => DirectoryState::Empty,
                TargetState::Unfinished(_) => DirectoryState::Unfinished,
                TargetState::Cluster => DirectoryState::Cluster,
            },
            postgres_major: self.source.postgres_major(),
            files: self.survey.files,
            bytes: self.source.summary.bytes,
            available_bytes: fsio::available_bytes(room::existing(&self.pgdata)?).map_err(local)?,
            tablespaces: self.tablespaces.iter().map(tablespace).collect(),
            wal_directory: self.request.waldir.clone().map(RawText::from),
            attachments: match &self.arrangement {
                Some(arrangement) => arrangement.plan.clone(),
                None => attachments::left_there(&self.survey.facts),
            },
            unarchived_wal: self.unarchived.clone(),
            owner: (fsio::own_user() == 0).then(|| self.owner.name()),
            settings,
            lasting_settings: self.settings.lasting.clone(),
            standby: self.request.standby,
            archiving: self.request.archiving,
            jobs: self.jobs,
            bin_directory: self.programs.clone().map(RawText::from),
            notes,
        })
    }

    /// The settings are not in the data directory, and nobody said where to put them.
    fn note_on_settings(&self) -> String {
        match attachments::main_of(&self.survey.facts) {
            Some(main) => format!("the server's settings were in {}: --config-to DIR puts them back", main.path),
            None => "the server's settings were outside the data directory and are not in the backup: put them back yourself"
                .to_owned(),
        }
    }

    /// A `pg_wal` that is a link now and will not be one any more: the log would then fill the disk of the data.
    fn note_on_pg_wal(&self) -> Result<Option<String>, Error> {
        let Some(dir) = self.taken.dir.as_ref().filter(|_| self.target_state.is_reused() && self.request.waldir.is_none()) else {
            return Ok(None);
        };
        let linked = dir.link_beneath(Path::new("pg_wal")).map_err(local)?;
        Ok(linked.map(|to| {
            let to = self.pgdata.join(to);
            let to = shown(to);
            format!("pg_wal is a link to {to} and will be a directory in the data directory: --waldir {to} keeps it there")
        }))
    }
}
