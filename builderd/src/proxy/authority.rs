//! An authority that vouches for every server, for the steps of one build and as long as that lasts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{ToSpan as _, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

/// Certificates that are kept; a step that asks for more servers has some made again.
const MOST_KEPT: usize = 1024;

/// Days for which certificates hold, of which no build lasts as many.
const DAYS: i64 = 30;

/// Bytes of a serial number.
const SERIAL: usize = 16;

/// What a distinguished name may have at most.
const LONGEST_NAME: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot use a key")]
    Key(#[from] rustls::Error),
}

/// Its key is in memory only, and never leaves this value.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// One key for all servers: all are this process.
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    known: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    pub fn new() -> Result<Self, AuthorityError> {
        let own = KeyPair::generate()?;
        let mut params = params(Vec::new(), "Trimaran build proxy")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = pem(params.self_signed(&own)?.der());
        let key = KeyPair::generate()?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self {
            issuer: Issuer::new(params, own),
            certificate,
            signing: aws_lc_rs::sign::any_ecdsa_type(&secret)?,
            key,
            known: Mutex::default(),
        })
    }

    /// What to trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What a server of this name or address shows.
    pub(super) fn identity(&self, host: &str) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = known.get(host) {
            return Ok(Arc::clone(identity));
        }
        let mut params = params(vec![host.to_owned()], host)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![certificate.der().clone()];
        let identity = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signing)));
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(host.to_owned(), Arc::clone(&identity));
        Ok(identity)
    }
}

fn params(names: Vec<String>, title: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(names)?;
    // Some programs take two certificates of one issuer and number for a forgery.
    let mut serial = rand::random::<[u8; SERIAL]>();
    // Positive, and of that length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    if title.len() <= LONGEST_NAME {
        params.distinguished_name.push(DnType::CommonName, title);
    }
    // Whole days, and clocks of steps are ours.
    let today = Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(today.saturating_sub(1.day()));
    params.not_after = day(today.saturating_add(DAYS.days()));
    Ok(params)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
