(** T3. Plain iteration converges: Banach, with a-priori and a-posteriori errors, on the whole space and on a ball. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space banach.
Open Scope R_scope.

(** On the whole space.  [Nat.iter k G y0] is the k-th iterate. *)
Theorem t3_banach (V : NormedModule R_AbsRing) (G : V -> V) (kappa : R) (y0 : V)
  (HV : complete V)
  (Hkappa : 0 <= kappa < 1)
  (HG : forall u v, norm (G u [-] G v) <= kappa * norm (u [-] v)) :
  exists y, G y = y /\ (forall z, G z = z -> z = y) /\
    (forall k, norm (Nat.iter k G y0 [-] y) <= kappa ^ k * norm (y0 [-] y)) /\
    (forall k, norm (Nat.iter k G y0 [-] y) <= kappa ^ k / (1 - kappa) * norm (G y0 [-] y0)) /\
    (forall k, norm (Nat.iter (S k) G y0 [-] y)
      <= kappa / (1 - kappa) * norm (Nat.iter (S k) G y0 [-] Nat.iter k G y0)).
Proof.
  destruct (banach_closed V (fun _ => True) G kappa y0) as (y & _ & Hy & Hu & Hpost & Hprior & Hrate); auto.
  exists y; repeat split; auto.
  intros k; simpl; set (u := Nat.iter k G y0).
  assert (H1 := HG u y); rewrite Hy in H1.
  apply Rle_trans with (1 := H1).
  replace (kappa / (1 - kappa) * norm (G u [-] u)) with (kappa * (norm (G u [-] u) / (1 - kappa))) by (field; lra).
  apply Rmult_le_compat_l; [lra|now apply Hpost].
Qed.

(** On a ball: G needs to contract there only, if its centre moves little enough. *)
Theorem t3_ball (V : NormedModule R_AbsRing) (G : V -> V) (kappa r : R) (ybar : V)
  (HV : complete V)
  (Hkappa : 0 <= kappa < 1)
  (HG : forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r ->
    norm (G u [-] G v) <= kappa * norm (u [-] v))
  (Hcentre : norm (G ybar [-] ybar) <= (1 - kappa) * r) :
  exists y, norm (y [-] ybar) <= r /\ G y = y /\
    (forall z, norm (z [-] ybar) <= r -> G z = z -> z = y) /\
    (forall k, norm (Nat.iter k G ybar [-] y) <= kappa ^ k / (1 - kappa) * norm (G ybar [-] ybar)).
Proof.
  assert (Hr : 0 <= r).
  { assert (H := norm_ge_0 (G ybar [-] ybar)).
    apply Rmult_le_reg_l with (1 - kappa); lra. }
  assert (Hc : norm (ybar [-] ybar) <= r) by (rewrite norm_minus_refl; exact Hr).
  destruct (banach_closed V (fun u => norm (u [-] ybar) <= r) G kappa ybar)
    as (y & Cy & Hy & Hu & _ & Hprior & _); auto.
  - intros y; apply ball_closed.
  - intros u Hu; assert (H1 := norm_minus_triangle (G u) (G ybar) ybar).
    assert (H2 := HG u ybar Hu Hc).
    assert (kappa * norm (u [-] ybar) <= kappa * r) by (apply Rmult_le_compat_l; lra).
    lra.
  - exists y; repeat split; auto.
Qed.
