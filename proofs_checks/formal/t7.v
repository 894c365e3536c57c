(** T7. Intra- and inter-path loss: under contraction both decay at the same rate; two limits refute uniqueness. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

Theorem t7_rates (V : NormedModule R_AbsRing) (f : V -> V) (kappa : R) (z0 w0 : V)
  (Hkappa : 0 <= kappa)
  (Hf : forall u v, norm (f u [-] f v) <= kappa * norm (u [-] v)) :
  (forall k, norm (f (Nat.iter k f z0) [-] Nat.iter k f z0) <= kappa ^ k * norm (f z0 [-] z0)) /\
  (forall k, norm (f (Nat.iter k f z0) [-] f (Nat.iter k f w0)) <= kappa ^ S k * norm (z0 [-] w0)).
Proof.
  split; induction k as [|k IH].
  - simpl; lra.
  - simpl Nat.iter; apply Rle_trans with (1 := Hf _ _); simpl pow; rewrite Rmult_assoc.
    now apply Rmult_le_compat_l.
  - simpl; rewrite Rmult_1_r; apply Hf.
  - simpl Nat.iter; apply Rle_trans with (1 := Hf _ _).
    rewrite <- tech_pow_Rmult, Rmult_assoc; now apply Rmult_le_compat_l.
Qed.
