//! The metrics endpoint, and strangers that connect to it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vsr_net_tcp::MetricsServer;

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_way_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let refused = MetricsServer::start(address).await.expect_err("the port is taken").to_string();
    assert!(refused.contains(&address.to_string()) && refused.contains("running already"), "{refused}");
}

/// They took all places for ten seconds each.
#[tokio::test]
async fn b16_connections_that_ask_nothing_do_not_block_a_scrape() {
    let server = MetricsServer::start(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a server");
    let mut strangers = Vec::new();
    for id in 0..60 {
        let mut stranger = TcpStream::connect(server.address()).await.expect("a connection");
        if id % 2 == 0 {
            stranger.write_all(b"GET /metrics HTTP/1.1\r\nHost: repl").await.expect("writing");
        }
        strangers.push(stranger);
    }
    let scrape = async {
        let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: replica\r\n\r\n").await.expect("writing");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    };
    let text = tokio::time::timeout(Duration::from_secs(5), scrape).await.expect("at once");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(strangers);
}
