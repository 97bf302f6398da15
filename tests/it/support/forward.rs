//! Stores that do little themselves: what they hand on to the one below.

/// Methods of a store that do what those of another one do, which is in this field.
macro_rules! forward {
    ($inner:tt: $($method:ident),+ $(,)?) => { $(crate::support::forward::forward!(@ $inner $method);)+ };
    (@ $inner:tt location) => {
        fn location(&self) -> &str {
            self.$inner.location()
        }
    };
    (@ $inner:tt begin) => {
        fn begin(
            &self,
            key: &walvis::store::Key,
            content: &walvis::store::ContentId,
        ) -> Result<Box<dyn walvis::store::Upload + '_>, walvis::store::StoreError> {
            self.$inner.begin(key, content)
        }
    };
    (@ $inner:tt read) => {
        fn read(
            &self,
            key: &walvis::store::Key,
            range: walvis::store::ReadRange,
        ) -> Result<walvis::store::Object<'_>, walvis::store::StoreError> {
            self.$inner.read(key, range)
        }
    };
    (@ $inner:tt list) => {
        fn list(
            &self,
            prefix: &str,
            after: &str,
            visit: &mut dyn FnMut(walvis::store::Entry) -> std::ops::ControlFlow<()>,
        ) -> Result<(), walvis::store::StoreError> {
            self.$inner.list(prefix, after, visit)
        }
    };
    (@ $inner:tt make_durable) => {
        fn make_durable(&self, key: &walvis::store::Key) -> Result<(), walvis::store::StoreError> {
            self.$inner.make_durable(key)
        }
    };
    (@ $inner:tt delete_many) => {
        fn delete_many(
            &self,
            keys: &[walvis::store::Key],
        ) -> Result<Vec<walvis::store::Deleted>, walvis::store::StoreError> {
            self.$inner.delete_many(keys)
        }
    };
    (@ $inner:tt leftovers) => {
        fn leftovers(
            &self,
            older_than: std::time::Duration,
        ) -> Result<Vec<walvis::store::Leftover>, walvis::store::StoreError> {
            self.$inner.leftovers(older_than)
        }
    };
    (@ $inner:tt remove_leftover) => {
        fn remove_leftover(&self, leftover: &walvis::store::Leftover) -> Result<bool, walvis::store::StoreError> {
            self.$inner.remove_leftover(leftover)
        }
    };
    (@ $inner:tt hidden) => {
        fn hidden(
            &self,
            prefix: &str,
            after: &str,
            visit: &mut dyn FnMut(walvis::store::Hidden) -> std::ops::ControlFlow<()>,
        ) -> Result<(), walvis::store::StoreError> {
            self.$inner.hidden(prefix, after, visit)
        }
    };
    (@ $inner:tt purge) => {
        fn purge(
            &self,
            hidden: &[walvis::store::Hidden],
        ) -> Result<Vec<walvis::store::Deleted>, walvis::store::StoreError> {
            self.$inner.purge(hidden)
        }
    };
    (@ $inner:tt features) => {
        fn features(&self) -> Result<walvis::store::features::Features, walvis::store::StoreError> {
            self.$inner.features()
        }
    };
    (@ $inner:tt can_replace) => {
        fn can_replace(
            &self,
            key: &walvis::store::Key,
            body: bytes::Bytes,
        ) -> Result<Option<bool>, walvis::store::StoreError> {
            self.$inner.can_replace(key, body)
        }
    };
}

pub(crate) use forward;
