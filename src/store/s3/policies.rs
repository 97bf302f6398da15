//! Policies of AWS for the credentials that a repository is used with: what each host needs, and no more.
//!
//! Actions, resources and condition keys are those of
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>; how requests without
//! `If-None-Match` are refused is from
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html>.

use serde_json::{Map, Value, json};

use super::settings::{LockMode, S3Settings, Sse};
use crate::store::policies::{Document, Policies};

/// What an operator puts in place of these words.
const ACCOUNT: &str = "ACCOUNT-ID";
const EXPIRING_HOST: &str = "role/EXPIRING-HOST";

impl S3Settings {
    /// The policies for this bucket and prefix. Without [`conditional`](Self::conditional) a writing host deletes its
    /// own claims.
    pub fn policies(&self) -> Policies {
        let mut writing = self.rights_of_any_host();
        let mut expiring = writing.clone();
        if !self.conditional {
            writing.push(allow("DeleteOwnClaims", &["s3:DeleteObject"], &[self.objects("claims/")]));
        }
        expiring.push(allow("DeleteObjects", &["s3:DeleteObject"], &[self.objects("")]));
        // Without these a lock cannot be seen.
        let locks = ["s3:GetObjectLegalHold", "s3:GetObjectRetention"];
        expiring.push(allow("SeeWhatHoldsObjects", &locks, &[self.objects("")]));
        let versions = ["s3:DeleteObjectVersion", "s3:GetObjectVersion"];
        let purging = vec![
            allow("ListVersions", &["s3:ListBucketVersions"], &[self.bucket_arn()]),
            allow("DeleteVersions", &versions, &[self.objects("")]),
        ];
        Policies {
            writing_host: document(writing),
            expiring_host: document(expiring),
            purging_host: document(purging),
            bucket: document(self.denials()),
            notes: self.notes(),
        }
    }

    /// What it takes to store, to read, and to see what the bucket does.
    fn rights_of_any_host(&self) -> Vec<Value> {
        let of_bucket =
            ["s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketMultipartUploads"];
        let of_objects = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"];
        let mut statements =
            vec![allow("ListBucket", &of_bucket, &[self.bucket_arn()]), allow("StoreAndRead", &of_objects, &[self.objects("")])];
        if self.object_lock.is_some() {
            statements.push(allow("LockNewObjects", &["s3:PutObjectRetention"], &[self.objects("")]));
        }
        if let Some(Sse::Kms { key_id: Some(key_id) }) = &self.sse {
            let key = if key_id.starts_with("arn:") {
                key_id.clone()
            } else {
                let region = self.region.as_deref().unwrap_or("REGION");
                // Of an alias nothing can be allowed.
                let key = if key_id.starts_with("alias/") { "KEY-ID" } else { key_id.as_str() };
                format!("arn:{}:kms:{region}:{ACCOUNT}:key/{key}", self.partition())
            };
            statements.push(allow("UseKey", &["kms:Decrypt", "kms:GenerateDataKey"], &[key]));
        }
        statements
    }

    /// What the bucket refuses, whatever the credentials may do.
    fn denials(&self) -> Vec<Value> {
        let mut statements = Vec::new();
        if self.conditional {
            let without_condition = json!({
                "Bool": {"s3:ObjectCreationOperation": "true"},
                "Null": {"s3:if-none-match": "true"},
            });
            statements.push(deny("NobodyReplacesObjects", &["s3:PutObject"], &[self.objects("")], Some(without_condition)));
        }
        let expiring = format!("arn:{}:iam::{ACCOUNT}:{EXPIRING_HOST}", self.partition());
        let others = json!({"ArnNotLike": {"aws:PrincipalArn": expiring}});
        // Writers delete their own claims where the store needs them.
        let kept: Vec<String> = if self.conditional {
            vec![self.objects("")]
        } else {
            ["clusters/", "keys/", "repairs/"]
                .map(|part| self.objects(part))
                .into_iter()
                .chain([self.object("walvis.json")])
                .collect()
        };
        let deletions = ["s3:DeleteObject", "s3:DeleteObjectVersion"];
        statements.push(deny("OnlyTheExpiringHostDeletes", &deletions, &kept, Some(others)));
        if self.object_lock.is_some_and(|lock| lock.mode == LockMode::Governance) {
            statements.push(deny("NobodyLiftsLocks", &["s3:BypassGovernanceRetention"], &[self.objects("")], None));
        }
        statements
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!(
                "put the number of the account in place of {ACCOUNT}, and the role or user that expires in place of {EXPIRING_HOST}"
            ),
            "s3:ListBucket is for the whole bucket, because S3 tells only so that an object does not exist: give the repository a bucket \
             of its own"
                .to_owned(),
            "the policy for purging is needed in addition, and only for expire --purge-versions: who has it can destroy what versions \
             would bring back"
                .to_owned(),
        ];
        if self.conditional && self.endpoint.is_some() {
            notes.push(
                "s3:if-none-match and s3:ObjectCreationOperation are condition keys of AWS: where another store refuses them, leave \
                 NobodyReplacesObjects out, and keep versions"
                    .to_owned(),
            );
        }
        if !self.conditional {
            notes.push("without create-if-absent nothing can keep objects from being replaced: keep versions".to_owned());
        }
        notes
    }

    fn partition(&self) -> &'static str {
        match self.region.as_deref() {
            Some(region) if region.starts_with("cn-") => "aws-cn",
            Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }

    fn bucket_arn(&self) -> String {
        format!("arn:{}:s3:::{}", self.partition(), self.bucket)
    }

    fn object(&self, key: &str) -> String {
        format!("{}/{}", self.bucket_arn(), self.full(key))
    }

    /// All objects whose keys begin so.
    fn objects(&self, beginning: &str) -> String {
        format!("{}*", self.object(beginning))
    }
}

fn document(statements: Vec<Value>) -> Document {
    Map::from_iter([("Version".to_owned(), "2012-10-17".into()), ("Statement".to_owned(), statements.into())])
}

fn allow(sid: &str, actions: &[&str], resources: &[String]) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources})
}

fn deny(sid: &str, actions: &[&str], resources: &[String], condition: Option<Value>) -> Value {
    let mut statement = json!({"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": resources});
    if let (Some(condition), Some(statement)) = (condition, statement.as_object_mut()) {
        statement.insert("Condition".to_owned(), condition);
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::s3::ObjectLock;

    fn settings(url: &str) -> S3Settings {
        S3Settings::parse_url(url).unwrap()
    }

    /// Effect, action and resource of everything in a document.
    fn rules(document: &Document) -> Vec<(String, String, String)> {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(document["Version"], "2012-10-17");
        let mut rules = Vec::new();
        for statement in document["Statement"].as_array().unwrap() {
            assert!(statement["Sid"].as_str().unwrap().bytes().all(|b| b.is_ascii_alphanumeric()));
            for action in texts(&statement["Action"]) {
                for resource in texts(&statement["Resource"]) {
                    rules.push((statement["Effect"].as_str().unwrap().to_owned(), action.clone(), resource));
                }
            }
        }
        rules
    }

    fn allowed<'a>(rules: &'a [(String, String, String)], action: &str) -> Vec<&'a str> {
        let is_it = |rule: &&(String, String, String)| rule.0 == "Allow" && rule.1 == action;
        rules.iter().filter(is_it).map(|rule| rule.2.as_str()).collect()
    }

    #[test]
    fn a_writing_host_deletes_nothing_and_an_expiring_one_no_versions() {
        let policies = settings("s3://backups/pg/main").policies();
        let objects = ["arn:aws:s3:::backups/pg/main/*"];
        let (writing, expiring, purging) =
            (rules(&policies.writing_host), rules(&policies.expiring_host), rules(&policies.purging_host));
        for action in ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"] {
            assert_eq!(allowed(&writing, action), objects);
            assert_eq!(allowed(&expiring, action), objects);
        }
        for action in ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketVersioning"] {
            assert_eq!(allowed(&writing, action), ["arn:aws:s3:::backups"]);
        }
        assert!(!writing.iter().any(|rule| rule.1.contains("Delete") || rule.1.contains("Bypass")));
        assert_eq!(allowed(&expiring, "s3:DeleteObject"), objects);
        assert!(!expiring.iter().any(|rule| rule.1.contains("Version") && rule.1 != "s3:GetBucketVersioning"));
        assert_eq!(allowed(&purging, "s3:DeleteObjectVersion"), objects);
        for document in [&policies.writing_host, &policies.expiring_host, &policies.purging_host] {
            assert!(rules(document).iter().all(|rule| rule.0 == "Allow" && !rule.1.contains('*')));
        }
    }

    #[test]
    fn a_bucket_refuses_to_replace_and_lets_one_host_delete() {
        let policies = settings("s3://backups").policies();
        let statements = policies.bucket["Statement"].as_array().unwrap();
        assert_eq!(statements.len(), 2);
        for statement in statements {
            assert_eq!((&statement["Effect"], &statement["Principal"]), (&json!("Deny"), &json!("*")));
            assert_eq!(statement["Resource"], json!(["arn:aws:s3:::backups/*"]));
        }
        let condition = json!({"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}});
        assert_eq!((&statements[0]["Action"], &statements[0]["Condition"]), (&json!(["s3:PutObject"]), &condition));
        let others = json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::ACCOUNT-ID:role/EXPIRING-HOST"}});
        assert_eq!(statements[1]["Condition"], others);
    }

    #[test]
    fn settings_that_need_rights_have_them() {
        let all = S3Settings {
            region: Some("cn-north-1".to_owned()),
            object_lock: Some(ObjectLock { mode: LockMode::Governance, retain_days: 1 }),
            sse: Some(Sse::Kms { key_id: Some("1234".to_owned()) }),
            conditional: false,
            ..settings("s3://backups/pg")
        };
        let policies = all.policies();
        let writing = rules(&policies.writing_host);
        assert_eq!(allowed(&writing, "s3:PutObjectRetention"), ["arn:aws-cn:s3:::backups/pg/*"]);
        assert_eq!(allowed(&writing, "kms:GenerateDataKey"), ["arn:aws-cn:kms:cn-north-1:ACCOUNT-ID:key/1234"]);
        assert_eq!(allowed(&writing, "s3:DeleteObject"), ["arn:aws-cn:s3:::backups/pg/claims/*"]);
        let bucket = rules(&policies.bucket);
        assert!(!bucket.iter().any(|rule| rule.1 == "s3:PutObject"), "the store knows no condition");
        let kept: Vec<&str> = bucket.iter().filter(|rule| rule.1 == "s3:DeleteObject").map(|rule| rule.2.as_str()).collect();
        assert_eq!(
            kept,
            [
                "arn:aws-cn:s3:::backups/pg/clusters/*",
                "arn:aws-cn:s3:::backups/pg/keys/*",
                "arn:aws-cn:s3:::backups/pg/repairs/*",
                "arn:aws-cn:s3:::backups/pg/walvis.json"
            ]
        );
        assert!(bucket.iter().any(|rule| rule.1 == "s3:BypassGovernanceRetention"));
        let by_arn = S3Settings { sse: Some(Sse::Kms { key_id: Some("arn:aws:kms:x:1:key/2".to_owned()) }), ..all };
        assert_eq!(allowed(&rules(&by_arn.policies().writing_host), "kms:Decrypt"), ["arn:aws:kms:x:1:key/2"]);
    }
}
