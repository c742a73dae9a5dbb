//! TLS over a socket, as client or server, with rustls.

use std::{io, net::IpAddr, sync::Arc};

use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{
            CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime,
            pem::{self, PemObject},
        },
        server::VerifierBuilderError,
    },
};

use super::{Socket, Transport};

/// Why certificates and keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain is not PEM, or empty.
    #[error("the certificate chain cannot be read")]
    Certificate(#[source] pem::Error),
    /// The private key is not PEM.
    #[error("the private key cannot be read")]
    Key(#[source] pem::Error),
    /// The trusted certificates are not PEM.
    #[error("the trusted certificates cannot be read")]
    Trusted(#[source] pem::Error),
    /// None of the trusted certificates can be used.
    #[error("the trusted certificates cannot be used")]
    Verifier(#[source] VerifierBuilderError),
    /// Certificate and key do not match, or rustls does not know their kind.
    #[error("certificate and key cannot be used")]
    Pair(#[source] rustls::Error),
    /// The server name is not a DNS name.
    #[error("{0:?} is not a server name")]
    ServerName(String, #[source] InvalidDnsNameError),
}

/// A certificate chain and its key, both in PEM.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// Reads both.
    ///
    /// # Errors
    /// [`TlsError`] if one of them is not PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = certificates(chain).map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        Ok(Self { chain, key })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certificates) }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS on the side of a listener.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl TlsServer {
    /// Presents `identity` to all clients, and asks no client for a certificate.
    ///
    /// # Errors
    /// [`TlsError::Pair`].
    pub fn new(identity: TlsIdentity, alpn_protocols: &[String]) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .map_err(TlsError::Pair)?;
        config.alpn_protocols = wire_names(alpn_protocols);
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(in crate::tap) async fn accept(&self, socket: Socket) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(TlsStream::from(self.0.accept(socket).await?)))
    }
}

/// TLS on the side of a cluster.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl TlsClient {
    /// Like Envoy, it checks the server's certificate only against `trusted`, if that is given, and never the name in
    /// it. `sni` is the server name to send, unless it is empty.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(
        sni: &str,
        trusted: Option<&[u8]>,
        identity: Option<TlsIdentity>,
        alpn_protocols: &[String],
    ) -> Result<Self, TlsError> {
        let chain = trusted.map(|trusted| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(trusted).map_err(TlsError::Trusted)?);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(TlsError::Verifier)
        });
        let verifier = EnvoyVerifier { chain: chain.transpose()?, provider: provider() };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            Some(TlsIdentity { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Pair)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = wire_names(alpn_protocols);
        let server_name = if sni.is_empty() {
            // rustls needs a name, but it does not send an address as SNI (RFC 6066 section 3).
            ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into())
        } else {
            ServerName::try_from(sni.to_owned()).map_err(|error| TlsError::ServerName(sni.to_owned(), error))?
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    pub(in crate::tap) async fn connect(&self, socket: Socket) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(TlsStream::from(self.connector.connect(self.server_name.clone(), socket).await?)))
    }
}

fn wire_names(protocols: &[String]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect()
}

impl Transport for TlsStream<Socket> {
    fn reset_on_drop(&self) {
        self.get_ref().0.reset_on_drop();
    }
}

/// Verifies as Envoy does: without `trusted_ca`, any certificate will do; with it, any name will do. The proof that the
/// server holds the certificate's key is always checked.
#[derive(Debug)]
struct EnvoyVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for EnvoyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the name last, so everything else is right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
