//! The proxy between this host and the store, as the environment names it.

use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::errors::{Failure, quote};
use super::settings::{InvalidSettings, is_loopback};

/// A proxy that the requests to a store go through.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    /// Host and port.
    address: String,
    /// What names it.
    variable: &'static str,
    intercept: Intercept,
}

impl Proxy {
    /// The proxy for an address: none for this very host, nor where `NO_PROXY` says so.
    ///
    /// # Errors
    /// What the environment names is no proxy. The HTTP client would go on without one.
    pub(super) fn of(address: &str) -> Result<Option<Self>, InvalidSettings> {
        Self::find(
            address,
            &|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
            &Matcher::from_env(),
        )
    }

    /// `matcher` is what the HTTP client goes by.
    fn find(
        address: &str,
        variable: &dyn Fn(&str) -> Option<String>,
        matcher: &Matcher,
    ) -> Result<Option<Self>, InvalidSettings> {
        if is_loopback(address) {
            return Ok(None);
        }
        let names: [&'static str; 4] = if address.starts_with("https://") {
            ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        } else {
            ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        };
        let set = names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()).map(|value| (*name, value)));
        let (Some((variable, value)), Ok(uri)) = (set, address.parse()) else { return Ok(None) };
        // It may hold a password.
        let shown = quote(value.rsplit('@').next().unwrap_or_default());
        let invalid = |what: &str| {
            InvalidSettings::new(format!("the proxy that {variable} names {what}: {shown:?}"))
                .hint(format!("the form is http://host:port; if there is no proxy, unset {variable}"))
        };
        let proxy = Matcher::builder().all(value.as_str()).build().intercept(&uri).ok_or_else(|| invalid("is not an address"))?;
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Err(invalid("does not speak HTTP, and no other can be used"));
        }
        let address = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
        // A port that is no number counts as none.
        if address.is_empty() || proxy.uri().port().is_none() && address.rsplit(']').next().unwrap_or_default().contains(':') {
            return Err(invalid("is not an address"));
        }
        Ok(matcher.intercept(&uri).map(|intercept| Self { address, variable, intercept }))
    }

    /// Where to connect to, and with which credentials.
    pub(super) fn intercept(&self) -> Intercept {
        self.intercept.clone()
    }

    /// Says of a request that did not come to the store that it went to the proxy.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        let Self { address, variable, .. } = self;
        failure.on_the_way(
            &format!("the proxy {address} ({variable})"),
            &format!("check {variable} and the proxy itself; hosts named in NO_PROXY are reached without it"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(address: &str, variables: &[(&str, &str)]) -> Result<Option<String>, InvalidSettings> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let text = |names: [&str; 2]| names.iter().find_map(|name| variable(name)).unwrap_or_default();
        let matcher = Matcher::builder()
            .all(text(["ALL_PROXY", "all_proxy"]))
            .http(text(["HTTP_PROXY", "http_proxy"]))
            .https(text(["HTTPS_PROXY", "https_proxy"]))
            .no(text(["NO_PROXY", "no_proxy"]))
            .build();
        Ok(Proxy::find(address, &variable, &matcher)?.map(|proxy| format!("{} by {}", proxy.address, proxy.variable)))
    }

    #[test]
    fn the_one_that_is_used() {
        let (s, p) = ("https://s3.example.org", "http://10.0.0.1:9000");
        assert_eq!(find(s, &[]).unwrap(), None);
        assert_eq!(find(s, &[("HTTPS_PROXY", "")]).unwrap(), None);
        assert_eq!(find(s, &[("HTTP_PROXY", "http://a:1")]).unwrap(), None);
        assert_eq!(find(p, &[("HTTP_PROXY", "http://a:1/")]).unwrap().unwrap(), "a:1 by HTTP_PROXY");
        assert_eq!(find(s, &[("https_proxy", "a:1"), ("ALL_PROXY", "b:1")]).unwrap().unwrap(), "a:1 by https_proxy");
        assert_eq!(find(s, &[("all_proxy", "http://u:secret@b:1")]).unwrap().unwrap(), "b:1 by all_proxy");
        assert_eq!(find(s, &[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "x, .example.org")]).unwrap(), None);
        assert_eq!(find(p, &[("HTTP_PROXY", "http://a:1"), ("no_proxy", "10.0.0.0/8")]).unwrap(), None);
        assert_eq!(find("http://127.0.0.1:9000", &[("HTTP_PROXY", "http://a:1")]).unwrap(), None);
    }

    #[test]
    fn what_is_no_proxy_is_an_error() {
        for value in ["http://", "http://u:secret@", "ftp://a:1", "http://a:port", "not a proxy", "socks5://a:1"] {
            let error = find("https://s3.example.org", &[("HTTPS_PROXY", value)]).unwrap_err();
            assert!(error.what.contains("HTTPS_PROXY") && !error.what.contains("secret"), "{value}: {}", error.what);
            assert_eq!(find("http://s3.example.org", &[("HTTPS_PROXY", value)]).unwrap(), None);
        }
    }
}
