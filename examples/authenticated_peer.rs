//! A gate lets connections in by the key that the peer has proven, and never by the id that it writes.
//!
//! The proof is made by hand here, so that nothing needs to be installed: the peer signs fresh bytes of the gate's. That stands
//! for TLS with client certificates, Noise or QUIC, which a real gate should use instead: they bind the proof to everything that
//! is said afterwards, where a signature alone lets somebody in the middle pass it on and then speak himself. With any of
//! them, `proven_key` is what the handshake hands over: the key of the verified certificate, the remote static key.
//!
//! `cargo run --example authenticated_peer`
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types, reason = "a program of its own")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use trustkeep::{NodeId, PublicKey, TrustReader, TrustRecord, TrustStore};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let store = TrustStore::in_memory();
    let (honest, impostor) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[66; 32]));
    let seven = NodeId::new(7).ok_or("0 is no node")?;
    // With its key: a record without one says nothing about who may call itself 7.
    let _receipt = store.grant(TrustRecord::new(seven, PublicKey::from_bytes(honest.verifying_key().to_bytes())?))?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let gate = listener.local_addr()?;
    let callers = 4;
    let reader = store.reader();
    let serving = thread::spawn(move || serve(&listener, reader, callers).map_err(|error| error.to_string()));

    let key_of = |signer: &SigningKey| signer.verifying_key().to_bytes();
    let answers = [
        ("7, with its key", call(gate, seven, key_of(&honest), &honest)?),
        ("another, who writes that it is 7", call(gate, seven, key_of(&impostor), &impostor)?),
        ("another, who writes 7 and its key", call(gate, seven, key_of(&honest), &impostor)?),
    ];
    let _revoked = store.revoke(seven)?;
    let after = call(gate, seven, key_of(&honest), &honest)?;
    serving.join().map_err(|_| "the gate panicked")??;

    for (who, is_in) in answers.into_iter().chain([("7, after it was revoked", after)]) {
        println!("{who}: {}", if is_in { "in" } else { "turned away" });
    }
    assert_eq!((answers.map(|(_, is_in)| is_in), after), ([true, false, false], false));
    Ok(())
}

/// What a connection has shown about who is at its other end.
struct Peer {
    /// Proven: whoever is there has the secret half of it.
    proven_key: PublicKey,
    /// A claim, and good for nothing but to look the record up that may belong to the key.
    claimed_id: NodeId,
}

/// Serves so many connections.
fn serve(listener: &TcpListener, mut trust: TrustReader, callers: usize) -> Outcome<()> {
    for stream in listener.incoming().take(callers) {
        let mut stream = stream?;
        // Once for each connection. A real gate keeps the id beside the connection, and asks `is_trusted` for each packet.
        let is_in = match authenticate(&mut stream)? {
            Some(Peer { proven_key, claimed_id }) => trust.is_trusted_with_key(claimed_id, &proven_key),
            None => false,
        };
        stream.write_all(&[u8::from(is_in)])?;
    }
    Ok(())
}

/// The part that a transport does: finds out which key the other end has.
fn authenticate(stream: &mut TcpStream) -> Outcome<Option<Peer>> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge)?;
    stream.write_all(&challenge)?;
    let (mut id, mut key, mut signature) = ([0; 4], [0; 32], [0; 64]);
    stream.read_exact(&mut id)?;
    stream.read_exact(&mut key)?;
    stream.read_exact(&mut signature)?;
    let claimed_id = NodeId::new(u32::from_le_bytes(id));
    let (Some(claimed_id), Ok(proven_key)) = (claimed_id, PublicKey::from_bytes(key)) else { return Ok(None) };
    let signed = VerifyingKey::from_bytes(&key)?
        .verify_strict(&signed_bytes(&challenge, claimed_id), &Signature::from_bytes(&signature));
    Ok(signed.is_ok().then_some(Peer { proven_key, claimed_id }))
}

/// A caller: writes an id and a key, and signs with the secret that it has. Whether it was let in.
fn call(gate: SocketAddr, claims: NodeId, key: [u8; 32], signer: &SigningKey) -> Outcome<bool> {
    let mut stream = TcpStream::connect(gate)?;
    let mut challenge = [0; 32];
    stream.read_exact(&mut challenge)?;
    stream.write_all(&claims.get().to_le_bytes())?;
    stream.write_all(&key)?;
    stream.write_all(&signer.sign(&signed_bytes(&challenge, claims)).to_bytes())?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == [1])
}

/// What is signed says what it is for, so that a signature that was given for something else means nothing here.
fn signed_bytes(challenge: &[u8; 32], id: NodeId) -> Vec<u8> {
    [&b"authenticated_peer, example of trustkeep"[..], challenge, &id.get().to_le_bytes()].concat()
}
