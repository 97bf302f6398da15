//! The way to a store: certificates, proxies, endpoints.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use walvis::store::s3::S3Settings;
use walvis::store::{Created, ErrorKind};

use super::{create, read_all, refuses};
use crate::support::command::Site;
use crate::support::s3::{S3Server, open};

#[test]
fn a_certificate_signed_by_itself_is_trusted_where_it_is_named() {
    let server = S3Server::start_self_signed();
    let store = server.store("pg");
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
    assert_eq!(read_all(&store, "a").unwrap(), b"x");

    // Another one like it is not, nor this one for another host or without being named.
    let other = S3Server::start_self_signed();
    let settings = S3Settings { ca_file: other.settings("").ca_file, ..server.settings("pg") };
    assert!(refuses(read_all(&open(settings), "a"), ErrorKind::Unreachable, "not trusted", "`ca_file`").is_permanent());
    let endpoint = server.endpoint().replace("127.0.0.1", "localhost");
    let settings = S3Settings { endpoint: Some(endpoint), ..server.settings("pg") };
    refuses(read_all(&open(settings), "a"), ErrorKind::Unreachable, "not trusted", "another host");
    let settings = S3Settings { ca_file: None, ..server.settings("pg") };
    refuses(read_all(&open(settings), "a"), ErrorKind::Unreachable, "not trusted", "`ca_file`");
}

#[test]
fn aws_ca_bundle_is_honoured() {
    for server in [S3Server::start_tls(), S3Server::start_self_signed()] {
        let mut site = Site::bare();
        site.use_s3(&server, "pg");
        let ca = site.get("WALVIS_S3_CA_FILE").unwrap();
        site.unset("WALVIS_S3_CA_FILE");
        site.run(["init", "--timeout=5"]).exits(11).says(&["not trusted"]);
        site.set("AWS_CA_BUNDLE", "/nonexistent/ca.pem");
        site.run(["init"]).exits(10).tells_the_way_out().says(&["/nonexistent/ca.pem", "AWS_CA_BUNDLE"]);
        site.set("AWS_CA_BUNDLE", ca);
        site.init();
    }
}

/// A proxy that connects whatever it is asked for to one address; and how often it was asked.
fn tunnel(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
                if !head.starts_with("CONNECT walvis.test:") {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(to).unwrap();
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut up, mut down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
                let upwards = std::thread::spawn(move || std::io::copy(&mut up.0, &mut up.1));
                let _ = std::io::copy(&mut down.0, &mut down.1);
                let _ = down.1.shutdown(std::net::Shutdown::Both);
                let _ = upwards.join();
            });
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_is_used_and_a_dead_one_is_called_one() {
    let server = S3Server::start_self_signed();
    let (proxy, asked) = tunnel(server.address());
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    site.set("WALVIS_S3_ENDPOINT", format!("https://walvis.test:{}", server.address().port()));
    site.set("HTTPS_PROXY", format!("http://user:hidden@{proxy}"));
    site.init();
    assert!(asked.load(Ordering::SeqCst) > 0);

    let list = ["list", "--timeout=2"];
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ca_file = site.get("WALVIS_S3_CA_FILE").unwrap();
    for own_certificate in [true, false] {
        if own_certificate {
            site.set("WALVIS_S3_CA_FILE", &ca_file)
        } else {
            site.unset("WALVIS_S3_CA_FILE")
        };
        site.set("HTTPS_PROXY", format!("http://user:hidden@{unused}"));
        let ran = site.run(list).exits(11).tells_the_way_out();
        let ran = ran.says(&[&format!("the proxy {unused} (HTTPS_PROXY)"), "connection was refused", "NO_PROXY"]);
        assert!(!ran.stderr.contains("hidden"), "{ran:?}");
        site.set("NO_PROXY", "walvis.test");
        let ran = site.run(list).exits(11).says(&["host name was not found"]);
        assert!(!ran.stderr.contains("the proxy"), "{ran:?}");
        site.unset("NO_PROXY");
    }
    for malformed in ["http://proxy:port", "socks5://127.0.0.1:1080", "http://"] {
        site.set("HTTPS_PROXY", malformed);
        let ran = site.run(list).exits(10).tells_the_way_out().says(&["HTTPS_PROXY"]);
        assert!(!ran.stderr.contains("trying again"), "{ran:?}");
    }
    // Of no concern on this very host.
    site.use_s3(&server, "pg");
    site.run(list).exits(0);
}

/// The path of the first request that arrives at an endpoint with this path.
fn requested(path: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}{path}", listener.local_addr().unwrap());
    let request = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let answer = "<Error><Code>NoSuchKey</Code></Error>";
        write!(&stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        line
    });
    let server = S3Server::start();
    let settings = S3Settings { endpoint: Some(endpoint), ..server.settings("pg") };
    refuses(read_all(&open(settings), "a"), ErrorKind::NotFound, "", "");
    request.join().unwrap()
}

#[test]
fn an_endpoint_may_have_a_path() {
    for path in ["/storage/v1/s3", "/storage/v1/s3/"] {
        let line = requested(path);
        assert!(line.starts_with("GET /storage/v1/s3/walvis-test/pg/a"), "{path}: {line}");
    }
    for path in ["", "/"] {
        let line = requested(path);
        assert!(line.starts_with("GET /walvis-test/pg/a"), "{path}: {line}");
    }
}
