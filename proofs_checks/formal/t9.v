(** T9. Conditioning: the inverse of a step amplifies by at most 1 / m, a trajectory by the product of the 1 / m_k;
    for the exact denoiser the product telescopes to sigma_T / sigma_0. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t2 t8.
Open Scope R_scope.

Theorem t9_step (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (m : R)
  (Hm : 0 < m)
  (HF : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩) :
  forall u v, norm (u [-] v) <= norm (F u [-] F v) / m.
Proof. intros u v; apply monotone_norm; [exact Hm|apply HF]. Qed.

(** a 0 * a 1 * ... * a (n - 1) *)
Fixpoint product (a : nat -> R) (n : nat) : R :=
  match n with
  | O => 1
  | S n => product a n * a n
  end.

(** Two trajectories inverted from two images: [y (S k)] solves F_k(y) = [y k]. *)
Theorem t9_trajectory (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : nat -> V -> V) (m : nat -> R)
  (y z : nat -> V)
  (Hm : forall k, 0 < m k)
  (HF : forall k u v, m k * norm (u [-] v) ^ 2 <= ⟨F k u [-] F k v, u [-] v⟩)
  (Hy : forall k, F k (y (S k)) = y k)
  (Hz : forall k, F k (z (S k)) = z k) :
  forall n, norm (y n [-] z n) <= product (fun k => / m k) n * norm (y O [-] z O).
Proof.
  induction n as [|n IH]; [simpl; lra|].
  apply Rle_trans with (1 := t9_step V ip (F n) (m n) (Hm n) (HF n) (y (S n)) (z (S n))).
  rewrite Hy, Hz; simpl product; unfold Rdiv; rewrite (Rmult_comm _ (/ m n)).
  rewrite (Rmult_comm (product _ n)), Rmult_assoc.
  apply Rmult_le_compat_l; [left; apply Rinv_0_lt_compat, Hm|exact IH].
Qed.

(** The exact denoiser: D_k is monotone (E3), rho_k = sigma_k / sigma_(k+1). *)
Theorem t9_exact (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : nat -> V -> V) (sigma : nat -> R)
  (y z : nat -> V)
  (Hsigma : forall k, 0 < sigma k <= sigma (S k))
  (HD : forall k u v, 0 <= ⟨D k u [-] D k v, u [-] v⟩)
  (Hy : forall k, sigma k / sigma (S k) [*] y (S k) [+] (1 - sigma k / sigma (S k)) [*] D k (y (S k)) = y k)
  (Hz : forall k, sigma k / sigma (S k) [*] z (S k) [+] (1 - sigma k / sigma (S k)) [*] D k (z (S k)) = z k) :
  forall n, norm (y n [-] z n) <= sigma n / sigma O * norm (y O [-] z O).
Proof.
  assert (Hrho : forall k, 0 < sigma k / sigma (S k) <= 1).
  { intros k; specialize (Hsigma k); split; [apply Rdiv_lt_0_compat; lra|].
    apply Rle_div_l; lra. }
  intros n.
  replace (sigma n / sigma O) with (product (fun k => / (sigma k / sigma (S k))) n).
  - apply (t9_trajectory V ip
      (fun k u => sigma k / sigma (S k) [*] u [+] (1 - sigma k / sigma (S k)) [*] D k u)); auto.
    + intros k; apply Hrho.
    + intros k; apply (t2_exact V ip (D k)); [apply Hrho|apply HD].
  - induction n as [|n IH]; simpl.
    + specialize (Hsigma O); field; lra.
    + rewrite IH; assert (H1 := Hsigma n); assert (H2 := Hsigma O).
      field; lra.
Qed.
