//! A further command in an instance, as frames both ways.

use std::pin::pin;

use futures::StreamExt;
use souk_protocol::{limits, message::Frame};
use souk_runtime::{ExecControl, ExecInput, ExecSession, ExecSpec, OutputStream, Runtime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::FramedRead;

use super::{FrameDecoder, send};

/// Runs a command in a lease's instance, and ends it when the asker goes. Input and output flow at once, so that neither can
/// hold up the other.
///
/// # Errors
/// A sentence for the asker.
pub async fn serve<S>(runtime: &dyn Runtime, lease: &str, spec: ExecSpec, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    if spec.command.is_empty() {
        return Err("no command was given".to_owned());
    }
    pass(runtime.exec(lease, spec).await.map_err(|e| e.to_string())?, stream).await
}

/// Passes a running command's streams on as frames until it ends or the asker goes.
///
/// # Errors
/// A sentence for the asker.
pub(super) async fn pass<S>(mut session: ExecSession, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (read, mut write) = tokio::io::split(stream);
    {
        let incoming = pin!(pump_in(read, session.input, &session.control));
        let outgoing = pin!(async {
            while let Some(piece) = session.output.next().await {
                let (from, bytes) = piece.map_err(|e| format!("the command's output broke off: {e}"))?;
                for part in bytes.chunks(limits::FRAME_BYTES) {
                    let frame = match from {
                        OutputStream::Stdout => Frame::Stdout(part.to_vec()),
                        OutputStream::Stderr => Frame::Stderr(part.to_vec()),
                    };
                    send(&mut write, &frame).await?;
                }
            }
            Ok::<(), String>(())
        });
        tokio::select! {
            done = outgoing => done?,
            ended = incoming => match ended {
                End::Gone => return Ok(()),
                End::Nonsense => return Err("only input and sizes are taken while a command runs".to_owned()),
            },
        }
    }
    let code = session.control.exit_code().await.map_err(|e| e.to_string())?;
    send(&mut write, &Frame::Exit(i32::try_from(code).unwrap_or(i32::MAX))).await
}

/// Why no more comes from the asker.
enum End {
    Gone,
    Nonsense,
}

async fn pump_in<R: AsyncRead + Unpin>(read: R, input: ExecInput, control: &ExecControl) -> End {
    let mut frames = FramedRead::new(read, FrameDecoder);
    let mut input = Some(input);
    loop {
        match frames.next().await {
            Some(Ok(Frame::Stdin(bytes))) => {
                if let Some(stdin) = &mut input
                    && stdin.write(&bytes).await.is_err()
                {
                    input = None;
                }
            }
            Some(Ok(Frame::StdinEnd)) => {
                if let Some(mut stdin) = input.take() {
                    stdin.close().await.ok();
                }
            }
            Some(Ok(Frame::Resize(columns, rows))) => {
                control.resize(rows, columns).await.ok();
            }
            Some(Ok(_)) => return End::Nonsense,
            // The end of input has a frame of its own: this is the end of the asker.
            None | Some(Err(_)) => return End::Gone,
        }
    }
}
