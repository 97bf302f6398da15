//! TLS that trusts what is in the CA file, be it an authority's certificate or the server's own.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector as TcpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::crypto::server_certificate::{Trusted, provider};

/// An HTTP client for `https://` that trusts the system's roots and the certificates of this PEM text.
///
/// # Errors
/// What the TLS library finds wrong with the certificates.
pub(super) fn client(pem: &[u8], proxy: Option<Intercept>, connect_timeout: Duration) -> Result<SharedHttpClient, rustls::Error> {
    let config = config(pem)?;
    let mut tcp = TcpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    Ok(match proxy {
        None => over(tcp, config),
        Some(proxy) => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            over(tunnel, config)
        }
    })
}

fn over<C>(connector: C, config: ClientConfig) -> SharedHttpClient
where
    hyper_rustls::HttpsConnector<C>: Connect + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let https = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(connector);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
    let connector = SharedHttpConnector::new(Connection(client));
    http_client_fn(move |_, _| connector.clone())
}

/// Sends the SDK's requests.
#[derive(Debug)]
struct Connection<C>(Client<C, SdkBody>);

impl<C: Connect + Clone + std::fmt::Debug + Send + Sync + 'static> HttpConnector for Connection<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            match answer.await {
                Ok(answer) => HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                    .map_err(|error| ConnectorError::other(error.into(), None)),
                Err(error) => Err(ConnectorError::io(error.into())),
            }
        })
    }
}

fn config(pem: &[u8]) -> Result<ClientConfig, rustls::Error> {
    let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
    let mut trusted = Trusted::by_the_system();
    // It was read before, and found whole.
    trusted.add(pem).map_err(|e| general(&e))?;
    let provider = provider();
    let verifier = trusted.verifier(&provider, Vec::new()).map_err(|e| general(&e))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
